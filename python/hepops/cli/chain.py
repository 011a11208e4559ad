"""The simulator as the command line describes it, and as a file of hits remembers it."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import parse_values

if TYPE_CHECKING:
    from torch import Tensor

    from hepops.lartpc import Detector, Parameters, Simulator


@dataclass(frozen=True)
class Chain:
    """Arguments of `Simulator`, as plain values."""

    response: str = "builtin"
    dtype: str = "float32"
    model: str = "birks"
    step: float = 0.1
    reach: int = 2
    length: int = 150
    lead: bool = True

    def but(self, **given: Any) -> "Chain":
        """With what was given on the command line; None is what was not."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def simulator(
        self, detector: "Detector", values: list[str] | None = None, parameters: "Parameters | None" = None
    ) -> "Simulator":
        """The simulator, at the parameters (the detector's nominal ones) with the `values` (name=value) on top."""
        import torch

        from hepops.lartpc import Simulator

        changed = parse_values("--parameter", values)
        own: Any = (parameters or detector.nominal).replace(**changed)
        if parameters is None and not detector.is_uniform:  # each module keeps what the change does not name
            own = {n: detector.view(n).nominal.replace(**changed) for n in detector.module_numbers}
        arguments: dict[str, Any] = asdict(self) | {"dtype": getattr(torch, self.dtype)}
        return Simulator(detector, own, **arguments)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Chain":
        """What a file of hits was made with; the defaults where it does not say."""
        return cls(**config.get("simulator", {}))


def read_threshold(text: str | None, detector: "Detector") -> "float | Tensor | None":
    """A number of electrons, or a table per pixel."""
    from hepops.lartpc import read_thresholds

    if text is None:
        return None
    if Path(text).suffix == ".npz":
        return read_thresholds(text, detector)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--threshold must be a number [e] or a .npz table, got {text!r}") from None
