"""The rational-quadratic spline of one number, in Python's own numbers: what imports are held against."""

import math


def softplus(u):
    return max(u, 0.0) + math.log1p(math.exp(-abs(u)))


def clipped(u, factor):
    return u / (1 + abs(factor * u / math.log(1e-3)))


def softmax(values):
    top = max(values)
    e = [math.exp(v - top) for v in values]
    return [v / sum(e) for v in e]


def spline(x, widths, heights, slopes, low, high, zuko=False, linear=True):
    """y and dy/dx: eq. 4 and 5 of arXiv:1906.04032."""
    if linear and not low <= x <= high:
        return x, 1.0
    K = len(widths)
    if zuko:
        w, h = (softmax([clipped(v, 2) for v in values]) for values in (widths, heights))
        d = [math.exp(clipped(v, 1)) for v in slopes]
    else:
        w, h = ([1e-3 + (1 - 1e-3 * K) * p for p in softmax(values)] for values in (widths, heights))
        d = [1e-3 + softplus(v) for v in slopes]
    if linear:
        d = [1.0, *d, 1.0]
    span = high - low
    x_k, y_k = low, low
    for k in range(K):
        last = k == K - 1
        if x < x_k + span * w[k] or last:
            width, height = span * w[k], span * h[k]
            s, xi = height / width, (x - x_k) / width
            below = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
            y = y_k + height * (s * xi**2 + d[k] * xi * (1 - xi)) / below
            slope = s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2) / below**2
            return y, slope
        x_k, y_k = x_k + span * w[k], y_k + span * h[k]
