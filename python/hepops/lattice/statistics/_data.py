"""What every method asks of a series of measurements."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Data = Tensor | Sequence[Tensor]


def replica(who: str, data: Data, least: int) -> list[Tensor]:
    """The chains, each (N_r, K) in float64.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: no measurements or too few, shapes that differ, NaN or infinity.
    """
    chains = [data] if isinstance(data, Tensor) else list(data)
    if not chains:
        raise ValueError(f"{who}: data must hold at least one chain, got none")
    flat = []
    for chain in chains:
        if not isinstance(chain, Tensor) or not chain.is_floating_point():
            got = chain.dtype if isinstance(chain, Tensor) else type(chain).__name__
            hint = ": torch.from_numpy(array) is one" if str(got) == "ndarray" else ""
            raise TypeError(f"{who}: data must be floating-point tensors, got {got}{hint}")
        if chain.dim() == 0 or chain.shape[1:] != chains[0].shape[1:]:
            raise ValueError(f"{who}: chains must have shape (N, ...), the same but for N, got {tuple(chain.shape)}")
        if len(chain) < least:
            raise ValueError(f"{who}: {least} measurements or more are needed in each chain, got {len(chain)}")
        flat.append(chain.detach().to(torch.float64).reshape(len(chain), -1))
        bad = int((~flat[-1].isfinite()).any(1).sum())
        if bad:
            raise ValueError(f"{who}: {bad} of {len(chain)} measurements are NaN or infinite")
    return flat


def shape_of(data: Data) -> torch.Size:
    """Of one measurement."""
    if not isinstance(data, Tensor) and not len(data):
        raise ValueError("data must hold at least one chain, got none")
    return (data if isinstance(data, Tensor) else data[0]).shape[1:]


def with_weights(who: str, data: Data, log_w: Data | None, function: Function | None) -> tuple[Data, Function]:
    r"""The data and the function of means of :math:`\sum w f / \sum w`: reweighting is a function of two means.

    Raises:
        ValueError: weights that do not fit the data, NaN or +inf among them.
    """
    shape = shape_of(data)
    f: Function = function if function is not None else lambda mean: mean
    if log_w is None:
        return data, f
    chains = [data] if isinstance(data, Tensor) else list(data)
    logs = [log_w] if isinstance(log_w, Tensor) else list(log_w)
    if [len(c) for c in chains] != [len(w) for w in logs] or any(w.dim() != 1 for w in logs):
        shapes = [tuple(w.shape) for w in logs]
        raise ValueError(
            f"{who}: log_w must hold a number for each measurement, {[len(c) for c in chains]}, got {shapes}"
        )
    top = max(float(w.max()) for w in logs)
    if not math.isfinite(top) or any(bool(w.isnan().any()) for w in logs):
        raise ValueError(f"{who}: log_w holds NaN or +inf, or only weights of 0")
    packed = []
    for chain, log in zip(chains, logs, strict=True):
        w = (log.to(torch.float64) - top).exp()
        weighted = chain.to(torch.float64).reshape(len(chain), -1) * w[:, None]
        packed.append(torch.cat([weighted, w[:, None]], 1))
    return packed, lambda means: f((means[..., :-1] / means[..., -1:]).reshape((*means.shape[:-1], *shape)))
