r"""Errors of a Markov chain by its autocorrelation function: Wolff's Gamma method, Madras-Sokal's window."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ._data import Data, Function, replica, shape_of, with_weights
from .measurement import Measurement

LEAST = 16  # measurements: with fewer no window can be told from noise


@dataclass(frozen=True)
class Autocorrelation:
    r"""What the autocorrelation function of a series says; each attribute has the shape of the quantity.

    Attributes:
        rho: :math:`\rho(t) = \Gamma(t)/\Gamma(0)`, shape (t, ...), with the correction for the bias of the mean.
        rho_error: Its standard error (Madras, Sokal; Luescher).
        tau: :math:`\tau_{int} = \frac12 + \sum_{t=1}^W \rho(t)`.
        tau_error: Standard error of it.
        window: W.
        variance: :math:`\Gamma(0)`: the variance of one measurement.
        samples: N, of all chains together.
        replica_p: The probability that the chains' means differ as much by chance; NaN for one chain.
    """

    rho: Tensor
    rho_error: Tensor
    tau: Tensor
    tau_error: Tensor
    window: Tensor
    variance: Tensor
    samples: int
    replica_p: Tensor

    @property
    def error(self) -> Tensor:
        """Standard error of the mean."""
        return (2 * self.tau * self.variance / self.samples).sqrt()


def autocorrelation(
    data: Data, *, window: Literal["gamma", "madras-sokal"] = "gamma", S: float = 1.5, c: float = 6.0
) -> Autocorrelation:
    r"""The autocorrelation function of a series and its integral.

    .. math:: \Gamma(t) = \frac{1}{N - R t} \sum_r \sum_{i=1}^{N_r - t} \delta_i \delta_{i+t}, \qquad
        \tau_{int}(W) = \tfrac12 + \sum_{t=1}^W \rho(t), \qquad \sigma^2 = \frac{2 \tau_{int}}{N} \Gamma(0)

    gamma: W is the first where :math:`e^{-W/\tau} - \tau / \sqrt{WN} < 0`, :math:`\tau = S / \ln[(2\tau_{int} + 1) /
    (2\tau_{int} - 1)]`: statistical and systematic error are then about equal. Its error is
    :math:`\tau_{int} \sqrt{4 (W + 1/2 - \tau_{int}) / N}`. madras-sokal: the first :math:`W \geq c\, \tau_{int}(W)`,
    error :math:`\tau_{int} \sqrt{2 (2W + 1) / N}`. Both are corrected for the bias of the mean, of order
    :math:`(2W + 1)/N`. Where :math:`\tau_{int} < 1/2` the window is that of :math:`1/(4 \tau_{int})`: the time of the
    chain :math:`\rho = (-a)^t` without its signs (Wolff stops at W = 1 there, and misses :math:`\rho(2) > 0`).

    Args:
        data: Measurements in order, shape (N, ...), or a sequence of chains (replica) of equal or different lengths.
        window: How W is chosen.
        S: Of the Gamma method, from 1 to 2: the decay of :math:`\Gamma` over that of the integral.
        c: Of Madras and Sokal, from 4 to 10.

    Returns:
        `Autocorrelation`. The window of each component is its own. Deterministic.

    Raises:
        TypeError: not floating-point.
        ValueError: fewer than 16 measurements in a chain, NaN or infinity, a component without fluctuations, too few
            samples for this autocorrelation: a window that does not end within half of the shortest chain, or
            :math:`N < 10\, \tau_{int}`, five independent measurements.

    References:
        | U. Wolff, Comput. Phys. Commun. 156 (2004) 143, hep-lat/0306017 (erratum 176 (2007) 383)
        | N. Madras, A. D. Sokal, J. Stat. Phys. 50 (1988) 109
        | M. Luescher, Comput. Phys. Commun. 165 (2005) 199, hep-lat/0409106, appendix E (the error of rho)

    Example:
        >>> independent = torch.randn(10_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        >>> a = hepops.lattice.statistics.autocorrelation(independent)
        >>> bool((a.tau - 0.5).abs() < 4 * a.tau_error)
        True
    """
    if window not in ("gamma", "madras-sokal"):
        raise ValueError(f"autocorrelation: window must be 'gamma' or 'madras-sokal', got {window!r}")
    if not S > 0 or not c > 0:
        raise ValueError(f"autocorrelation: S and c must be positive, got {S} and {c}")
    chains = replica("autocorrelation", data, LEAST)
    mean = torch.cat(chains).mean(0)
    result = _of_fluctuations([chain - mean for chain in chains], window, S, c)
    shape = shape_of(data)
    parts = {name: getattr(result, name) for name in _TENSORS}
    return Autocorrelation(**{k: x.reshape((*x.shape[:-1], *shape)) for k, x in parts.items()}, samples=result.samples)


_TENSORS = ("rho", "rho_error", "tau", "tau_error", "window", "variance", "replica_p")


def _of_fluctuations(chains: list[Tensor], window: str, S: float, c: float) -> Autocorrelation:
    N, R, shortest = sum(map(len, chains)), len(chains), min(map(len, chains))
    most = shortest // 2
    lags = torch.arange(most + 1, dtype=torch.float64, device=chains[0].device)[:, None]
    gamma = sum(_products(chain, most) for chain in chains) / (N - R * lags)
    assert isinstance(gamma, Tensor)
    if bool((gamma[0] <= 0).any()):
        raise ValueError("autocorrelation: a component has no fluctuations: its error cannot be told from the series")
    tau = 0.5 + torch.cat([0 * gamma[:1], (gamma[1:] / gamma[0]).cumsum(0)])  # of each window
    W = _window(tau[1:], lags[1:], N, window, S, c)
    # the mean of the series was subtracted, not the true one: Gamma lacks C / N
    full = gamma[0] * 2 * tau.gather(0, W[None])[0]
    gamma = gamma + full / N
    rho = gamma / gamma[0]
    summed = 0.5 + torch.cat([0 * rho[:1], rho[1:].cumsum(0)])
    tau_w = summed.gather(0, W[None])[0]
    wide = W.to(torch.float64)
    if window == "gamma":
        spread = (4 / N * (wide + 0.5 - tau_w).clamp_min(0.5)).sqrt()
    else:
        spread = (2 * (2 * wide + 1) / N).sqrt()
    if bool((N < 10 * tau_w).any()):
        raise ValueError(
            f"autocorrelation: too few samples for this autocorrelation time: {N} with tau = {float(tau_w.max()):.3g}"
        )
    tau_error = tau_w * spread
    p = torch.full_like(tau_w, math.nan)
    if R > 1:
        lengths = torch.tensor([len(chain) for chain in chains], dtype=torch.float64, device=p.device)
        means = torch.stack([chain.mean(0) for chain in chains])
        chi2 = (means.square() * lengths[:, None]).sum(0) / (2 * tau_w * gamma[0])
        p = torch.special.gammaincc(torch.full_like(chi2, (R - 1) / 2), chi2 / 2)
    return Autocorrelation(rho, _rho_error(rho, W, N), tau_w, tau_error, W, gamma[0], N, p)


def _window(tau: Tensor, steps: Tensor, N: int, window: str, S: float, c: float) -> Tensor:
    """Where the sum stops, by tau_int of each window 1 ... ."""
    least = 0.5 + 1e-12
    scale = torch.maximum(tau, 0.25 / tau.clamp_min(0.01)).clamp_min(least)
    if window == "gamma":
        decay = S / ((2 * scale + 1) / (2 * scale - 1)).log()
        ends = (-steps / decay).exp() - decay / (steps * N).sqrt() < 0
    else:
        ends = steps >= c * scale
    if not bool(ends.any(0).all()):
        raise ValueError(
            f"autocorrelation: too few samples for this autocorrelation time: the window does not end within {len(tau)}"
        )
    return ends.to(torch.int8).argmax(0) + 1


def _products(chain: Tensor, most: int) -> Tensor:
    """sum_i delta_i delta_{i+t}, t = 0 ... most, shape (most + 1, K), by Fourier transforms without wrap."""
    size = 1 << (len(chain) + most).bit_length()
    spectrum = torch.fft.rfft(chain, size, dim=0).abs().square()
    return torch.fft.irfft(spectrum, size, dim=0)[: most + 1]


def _rho_error(rho: Tensor, W: Tensor, N: int) -> Tensor:
    """(delta rho(t))^2 = (1/N) sum_{k >= 1} [rho(k+t) + rho(|k-t|) - 2 rho(t) rho(k)]^2, k up to t + W."""
    most = len(rho) - 1
    errors = torch.zeros_like(rho)
    longest = int(W.max())
    shown = min(most, 4 * longest + 20)  # farther out is noise that nobody draws
    known = torch.cat([rho[: longest + 1], 0 * rho[longest + 1 :], 0 * rho])  # beyond the window it is noise
    for t in range(1, shown + 1):
        k = torch.arange(1, t + longest + 1, device=rho.device)
        term = known[(k + t).clamp_max(2 * most)] + known[(k - t).abs()] - 2 * known[t] * known[k]
        errors[t] = (term.square().sum(0) / N).sqrt()
    errors[shown + 1 :] = errors[shown]
    return errors


def gamma_method(
    data: Data,
    function: Function | None = None,
    *,
    log_w: Data | None = None,
    window: Literal["gamma", "madras-sokal"] = "gamma",
    S: float = 1.5,
    c: float = 6.0,
) -> Measurement:
    r"""A function of means with its error from the autocorrelation of the chain.

    The fluctuations of :math:`f(\bar a)` are those of :math:`\sum_\alpha f_\alpha (a_\alpha - \bar a_\alpha)` with the
    gradient :math:`f_\alpha` at the means, which autograd gives. The error's own error is
    :math:`\sigma \sqrt{(W + 1/2) / N}`.

    Args:
        data: Measurements in order, shape (N, ...), or a sequence of chains (replica).
        function: From the means, the shape of one measurement, to a tensor of any shape, in torch; None: the means.
        log_w: Logarithms of weights, shape (N) for each chain: means are :math:`\sum w a / \sum w`.
        window: See `autocorrelation`.
        S: See `autocorrelation`.
        c: See `autocorrelation`.

    Returns:
        `Measurement` with tau, its error and the window of each number. Deterministic.

    Raises:
        TypeError: not floating-point.
        ValueError: as `autocorrelation`; weights that do not fit.

    References:
        | U. Wolff, Comput. Phys. Commun. 156 (2004) 143, hep-lat/0306017

    Example:
        >>> x = torch.linspace(-1, 1, 1001, dtype=torch.float64)[torch.randperm(1001, generator=torch.manual_seed(1))]
        >>> moments = torch.stack([x**2, x**4], 1)
        >>> binder = hepops.lattice.statistics.gamma_method(moments, lambda m: 1 - m[1] / (3 * m[0] ** 2))
        >>> abs(float(binder.value) - 0.4) < 3 * float(binder.error)
        True
    """
    data, f = with_weights("gamma_method", data, log_w, function)
    chains, shape = replica("gamma_method", data, LEAST), shape_of(data)
    mean = torch.cat(chains).mean(0)

    def of_row(row: Tensor) -> Tensor:
        return f(row.reshape(shape))

    value = of_row(mean)
    slopes = torch.autograd.functional.jacobian(of_row, mean).reshape(-1, len(mean))
    projected = [(chain - mean) @ slopes.T for chain in chains]
    if not bool(slopes.isfinite().all()) or not bool(value.isfinite().all()):
        raise ValueError(f"gamma_method: the function or its gradient is not finite at the means: {value}")
    a = _of_fluctuations(projected, window, S, c)
    error, tau, tau_error, window_of = (x.reshape(value.shape) for x in (a.error, a.tau, a.tau_error, a.window))
    own = error * ((window_of + 0.5) / a.samples).sqrt()
    return Measurement(value.detach(), error, own, tau, tau_error, window_of, a.samples, "gamma")
