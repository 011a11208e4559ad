from ._plain import convolve, depthwise
