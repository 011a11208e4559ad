"""Jackknife and bootstrap of functions of means, with binning."""

import torch
from torch import Tensor

from ._data import Data, Function, replica, shape_of, with_weights
from .measurement import Measurement


def _bins(who: str, data: Data, bin_size: int) -> tuple[Tensor, Tensor]:
    """Sums of bins of consecutive measurements, (bins, K), and how many each holds; the last of a chain are longer."""
    if not isinstance(bin_size, int) or bin_size < 1:
        raise ValueError(f"{who}: bin_size must be a whole number of 1 or more, got {bin_size}")
    sums, counts = [], []
    for chain in replica(who, data, 1):
        bins = max(1, len(chain) // bin_size)
        edges = torch.arange(bins + 1, device=chain.device) * bin_size
        edges[-1] = len(chain)
        number = edges[1:] - edges[:-1]
        index = torch.repeat_interleave(torch.arange(bins, device=chain.device), number)
        sums.append(chain.new_zeros(bins, chain.shape[1]).index_add_(0, index, chain))
        counts.append(number.to(torch.float64))
    total = sum(map(len, sums))
    if total < 2:
        raise ValueError(f"{who}: 2 bins or more are needed, got {total} of size {bin_size}")
    return torch.cat(sums), torch.cat(counts)


def _apply(f: Function, means: Tensor, shape: torch.Size, vectorised: bool) -> Tensor:
    rows = means.reshape(len(means), *shape)
    if vectorised:
        result = torch.vmap(f)(rows)
        assert isinstance(result, Tensor)
        return result
    return torch.stack([f(row) for row in rows])


def jackknife(
    data: Data,
    function: Function | None = None,
    *,
    bin_size: int = 1,
    log_w: Data | None = None,
    vectorised: bool = True,
) -> Measurement:
    r"""A function of means by leaving out one bin after the other.

    .. math:: \sigma^2 = \frac{B - 1}{B} \sum_b (f_b - \bar f_b)^2

    with f_b the function of the means without bin b. The value is :math:`f(\bar a)`, not corrected for its bias of
    order 1/N.

    Args:
        data: Measurements in order, shape (N, ...), or a sequence of chains.
        function: From the means, the shape of one measurement, to a tensor of any shape, in torch; None: the means.
        bin_size: Consecutive measurements in a bin, several autocorrelation times; the last bin of a chain takes what
            is left over.
        log_w: Logarithms of weights, shape (N) for each chain: means are :math:`\sum w a / \sum w`.
        vectorised: Call the function once, by torch.vmap; False: once a bin, for functions with control flow.

    Returns:
        `Measurement`; its error of the error is :math:`\sigma / \sqrt{2 (B - 1)}`. Deterministic.

    Raises:
        TypeError: not floating-point.
        ValueError: fewer than 2 bins, NaN or infinity, weights that do not fit.

    References:
        | B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982

    Example:
        >>> print(hepops.lattice.statistics.jackknife(torch.tensor([1.0, 2.0, 3.0, 4.0])))
        2.5(6)
    """
    data, f = with_weights("jackknife", data, log_w, function)
    shape, samples = shape_of(data), sum(map(len, [data] if isinstance(data, Tensor) else data))
    sums, counts = _bins("jackknife", data, bin_size)
    value = f((sums.sum(0) / counts.sum()).reshape(shape))
    each = _apply(f, (sums.sum(0) - sums) / (counts.sum() - counts)[:, None], shape, vectorised)
    B = len(sums)
    error = ((each - each.mean(0)).square().sum(0) * (B - 1) / B).sqrt()
    return Measurement(value, error, error / (2 * (B - 1)) ** 0.5, samples=samples, method="jackknife")


def bootstrap(
    data: Data,
    function: Function | None = None,
    *,
    seed: int,
    resamples: int = 1000,
    bin_size: int = 1,
    log_w: Data | None = None,
    vectorised: bool = True,
) -> Measurement:
    r"""A function of means with the spread that it has over samples of bins drawn with replacement.

    Args:
        data: Measurements in order, shape (N, ...), or a sequence of chains.
        function: From the means, the shape of one measurement, to a tensor of any shape, in torch; None: the means.
        seed: Of the draws, which are the same on every device.
        resamples: How many samples of bins.
        bin_size: Consecutive measurements in a bin, several autocorrelation times.
        log_w: Logarithms of weights, shape (N) for each chain.
        vectorised: Call the function once, by torch.vmap; False: once a sample.

    Returns:
        `Measurement`: the value at the means of all, the standard deviation over the samples times
        :math:`\sqrt{B/(B-1)}`. Deterministic.

    Raises:
        TypeError: not floating-point.
        ValueError: fewer than 2 bins or resamples, NaN or infinity, weights that do not fit.

    References:
        | B. Efron, Ann. Statist. 7 (1979) 1

    Example:
        >>> x = torch.arange(100, dtype=torch.float64)
        >>> mean = hepops.lattice.statistics.bootstrap(x, seed=1)
        >>> bool((mean.error - x.std() / 10).abs() < 0.3)
        True
    """
    data, f = with_weights("bootstrap", data, log_w, function)
    shape, samples = shape_of(data), sum(map(len, [data] if isinstance(data, Tensor) else data))
    sums, counts = _bins("bootstrap", data, bin_size)
    each = _apply(f, _resampled(sums, counts, seed, resamples), shape, vectorised)
    value, B = f((sums.sum(0) / counts.sum()).reshape(shape)), len(sums)
    error = each.std(0) * (B / (B - 1)) ** 0.5
    return Measurement(value, error, error / (2 * (B - 1)) ** 0.5, samples=samples, method="bootstrap")


def _resampled(sums: Tensor, counts: Tensor, seed: int, resamples: int) -> Tensor:
    """Means of the drawn bins, shape (resamples, K)."""
    if resamples < 2:
        raise ValueError(f"bootstrap: resamples must be 2 or more, got {resamples}")
    B = len(sums)
    drawn = torch.randint(B, (resamples, B), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, B, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    times = times.to(sums.device)
    return (times @ sums) / (times @ counts)[:, None]


def covariance(data: Data, *, bin_size: int = 1) -> Tensor:
    r"""The covariance matrix of the means, of a correlator C(t) at all times.

    .. math:: \mathrm{cov}_{st} = \frac{1}{B (B - 1)} \sum_b (a^b_s - \bar a_s)(a^b_t - \bar a_t)

    over means of B bins.

    Args:
        data: Measurements in order, shape (N, K), or a sequence of chains.
        bin_size: Consecutive measurements in a bin, several autocorrelation times.

    Returns:
        float64, shape (K, K); singular where there are not more bins than numbers.

    Raises:
        TypeError: not floating-point.
        ValueError: fewer than 2 bins, NaN or infinity.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
        >>> hepops.lattice.statistics.covariance(x)
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    sums, counts = _bins("covariance", data, bin_size)
    B = len(sums)
    off = (sums / counts[:, None] - sums.sum(0) / counts.sum()) * (counts * B / counts.sum())[:, None]
    return off.T @ off / (B * (B - 1))


def correlation(covariance: Tensor) -> Tensor:
    """The correlation matrix of a covariance matrix: 1 on the diagonal."""
    sigma = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return covariance / (sigma[..., :, None] * sigma[..., None, :])
