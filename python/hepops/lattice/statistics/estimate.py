"""One door to the three methods."""

from collections.abc import Callable
from typing import Any, Literal

from ._data import Data, Function
from .gamma import gamma_method
from .measurement import Measurement
from .resampling import bootstrap, jackknife


def estimate(
    data: Data,
    function: Function | None = None,
    *,
    method: Literal["gamma", "jackknife", "bootstrap"] = "gamma",
    log_w: Data | None = None,
    **options: Any,
) -> Measurement:
    """A function of means with its error: `gamma_method`, `jackknife` or `bootstrap`, with their options.

    Args:
        data: Measurements in order, shape (N, ...), or a sequence of chains.
        function: From the means, the shape of one measurement, to a tensor of any shape, in torch; None: the means.
        method: Which.
        log_w: Logarithms of weights, of a flow's samples: means are reweighted.
        **options: Of the method: window, S, c; bin_size, vectorised; seed, resamples.

    Raises:
        ValueError: another method; what the method refuses.

    Example:
        >>> weights = torch.tensor([0.0, 1.0]).log()
        >>> hepops.lattice.statistics.estimate(torch.tensor([5.0, 3.0]), log_w=weights, method="jackknife").value
        tensor(3., dtype=torch.float64)
    """
    methods: dict[str, Callable[..., Measurement]] = {
        "gamma": gamma_method,
        "jackknife": jackknife,
        "bootstrap": bootstrap,
    }
    if method not in methods:
        raise ValueError(f"estimate: method must be one of {', '.join(methods)}, got {method!r}")
    return methods[method](data, function, log_w=log_w, **options)
