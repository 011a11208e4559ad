r"""Modified Bessel functions of integer order, by recurrence."""

import numpy as np
from numpy.typing import NDArray


def bessel_ratios(x: float, orders: int) -> tuple[float, NDArray[np.float64]]:
    r"""ln I_0(x) and I_n(x) / I_0(x) for n = 0 ... orders, in float64.

    Downwards, :math:`r_n = I_n / I_{n-1} = 1 / (2n/x + r_{n+1})`, which loses nothing (all terms are positive); the
    scale is that of :math:`e^x = I_0 + 2 \sum_n I_n`. Relative errors are a few 1e-16 times n. Negative x: I_n(-x) =
    (-1)^n I_n(x).

    Args:
        x: Any real number.
        orders: The highest n.

    References:
        | J. C. P. Miller's recurrence: M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions, 9.12 and 9.6.37

    Example:
        >>> log_i0, ratios = bessel_ratios(2.0, 2)
        >>> print(round(ratios[1], 12))
        0.697774657964
    """
    size = abs(x)
    if size == 0:
        return 0.0, np.concatenate([[1.0], np.zeros(orders)])
    # r_n < x / 2n: from here on the start of the recurrence is forgotten, and the sum's tail is below 1e-20
    start = orders + 40 + int(8 * np.sqrt(size)) + int(1.5 * size)
    ratio, steps = 0.0, np.empty(start)
    for n in range(start, 0, -1):
        ratio = size / (2 * n + size * ratio)
        steps[n - 1] = ratio
    products = np.cumprod(steps)
    log_i0 = size - float(np.log1p(2 * products[::-1].sum()))
    ratios = np.concatenate([[1.0], products[:orders]])
    if x < 0:
        ratios[1::2] *= -1
    return log_i0, ratios
