from ._plain import interpolate as interpolate
