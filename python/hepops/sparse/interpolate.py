from ._plain import interpolate
