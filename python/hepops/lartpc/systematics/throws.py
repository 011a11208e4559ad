"""Which universes to simulate: throws from a covariance, and one parameter at a time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..parameters import Parameters
from ..segments import Segments
from .observables import Observable

if TYPE_CHECKING:
    from ..simulator import Simulator


def throws(
    names: Sequence[str], mean: Tensor | Sequence[float], covariance: Tensor, n: int, *, seed: int, tries: int = 100
) -> dict[str, Tensor]:
    """Draw n universes from a Gaussian, for example from `FitResult.names`, `.values` and `.covariance`.

    A draw outside of what the laws allow (`Parameters.SPEC`, floor and ceiling) is drawn again.

    Returns:
        name -> float64 (n), what `Simulator.universes` takes. The same for the same seed, whatever the threads.

    Raises:
        ValueError: an unknown name, shapes that do not fit, a covariance that is not symmetric and positive (it is NaN
            where no data determined a name), or a mean so far outside that draws do not end.
    """
    centre = torch.as_tensor(mean, dtype=torch.float64).cpu()
    matrix = torch.as_tensor(covariance, dtype=torch.float64).cpu()
    K = len(names)
    specs = [Parameters.spec(name) for name in names]
    if K == 0 or centre.shape != (K,) or matrix.shape != (K, K):
        raise ValueError(
            f"throws: {K} names, mean {tuple(centre.shape)} and covariance {tuple(matrix.shape)} do not fit"
        )
    if n < 1:
        raise ValueError(f"throws: n must be at least 1, got {n}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("throws: the covariance holds NaN or infinity: was every name determined by the data?")
    scale = matrix.diagonal().clamp(min=0).sqrt()
    unit = torch.where(scale > 0, scale, torch.ones_like(scale))
    reduced = matrix / unit / unit[:, None]
    values, vectors = torch.linalg.eigh((reduced + reduced.T) / 2)
    if not bool(((reduced - reduced.T).abs() < 1e-9).all()) or float(values.min()) < -1e-9:
        raise ValueError(f"throws: the covariance must be symmetric and positive, least eigenvalue {values.min():.3g}")
    root = unit[:, None] * vectors * values.clamp(min=0).sqrt()
    low, high = (torch.tensor([getattr(s, end) for s in specs], dtype=torch.float64) for end in ("floor", "ceiling"))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(n, K, dtype=torch.float64)
    bad = torch.ones(n, dtype=torch.bool)
    for _ in range(tries):
        z = torch.randn(n, K, generator=generator, dtype=torch.float64)
        drawn = torch.where(bad[:, None], centre + z @ root.T, drawn)
        bad = ~((drawn >= low) & (drawn <= high)).all(1)
        if not bool(bad.any()):
            return {name: drawn[:, k].contiguous() for k, name in enumerate(names)}
    raise ValueError(f"throws: {int(bad.sum())} of {n} draws lie outside of what the laws allow after {tries} tries")


def knobs(nominal: Parameters, sigma: Mapping[str, float]) -> list[Parameters]:
    """The nominal universe, then for every name one with it lower by sigma, and one with it higher.

    Raises:
        ValueError: an unknown name, a sigma that is not positive, or a value that the laws do not allow.
    """
    result = [nominal]
    for name, s in sigma.items():
        Parameters.spec(name)
        if not s > 0:
            raise ValueError(f"knobs: sigma of {name} must be positive, got {s}")
        now = getattr(nominal, name)
        result += [Parameters(**{**nominal.to_dict(), name: now + sign * s}) for sign in (-1, 1)]
    return result


class Knob(NamedTuple):
    name: str
    low: Tensor  # change of the observable where the parameter is lower by sigma
    high: Tensor  # where it is higher


def knob_table(
    sim: "Simulator", segments: Segments, observable: Observable, sigma: Mapping[str, float]
) -> tuple[Tensor, list[Knob]]:
    """The observable at the simulator's parameters, and what one sigma of each parameter changes."""
    results = [observable(h).detach().double() for h in sim.universes(knobs(sim.parameters_now, sigma), segments)]
    nominal, rest = results[0], results[1:]
    pairs = zip(sigma, rest[::2], rest[1::2], strict=True)
    return nominal, [Knob(name, low - nominal, high - nominal) for name, low, high in pairs]
