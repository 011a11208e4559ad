"""The simulator as the command line describes it, and as a file of hits remembers it."""

from collections.abc import Mapping
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
        self,
        detector: "Detector",
        values: list[str] | None = None,
        parameters: "Parameters | Mapping[int, Parameters] | None" = None,
    ) -> "Simulator":
        """The simulator, at the parameters (the detector's nominal ones) with the `values` (name=value) on top.

        Parameters may be given by module; those of modules that the detector has not are left out.
        """
        import torch

        from hepops.lartpc import Simulator

        changed = parse_values("--parameter", values)
        if parameters is None and not detector.is_uniform:  # each module keeps what the change does not name
            parameters = {n: detector.view(n).nominal for n in detector.module_numbers}
        own: Any
        if isinstance(parameters, Mapping):
            here = [n for n in detector.module_numbers if n in parameters]
            own = {n: parameters[n].replace(**changed) for n in here}
            own = own[here[0]] if detector.is_uniform and len(here) == 1 else own
        else:
            own = (parameters or detector.nominal).replace(**changed)
        arguments: dict[str, Any] = asdict(self) | {"dtype": getattr(torch, self.dtype)}
        return Simulator(detector, own, **arguments)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Chain":
        """What a file of hits was made with; the defaults where it does not say."""
        return cls(**config.get("simulator", {}))


def parameters_of(sim: "Simulator") -> dict[str, Any]:
    """For a file's config: `parameters`, or where modules differ `module_parameters`, by number of the module."""
    own: Any = sim
    if not getattr(sim, "per_module", ()):
        return {"parameters": sim.parameters_now}
    numbers = sim.detector.module_numbers
    return {"module_parameters": {str(n): own.parameters_of(n).to_dict() for n in numbers}}


def made_with(config: dict[str, Any]) -> "Parameters | dict[int, Parameters] | None":
    """What `parameters_of` wrote; None where a file does not say."""
    from hepops.lartpc import Parameters

    if "module_parameters" in config:
        return {int(n): Parameters.from_dict(values) for n, values in config["module_parameters"].items()}
    made: Parameters | None = config.get("parameters")
    return made


def truth_of(config: dict[str, Any]) -> dict[str, float] | None:
    """The parameters of simulated hits by name, those that differ from module to module left out; None: unknown."""
    made = made_with(config)
    if made is None:
        return None
    each = [p.to_dict() for p in (made.values() if isinstance(made, dict) else [made])]
    return {name: value for name, value in each[0].items() if all(p[name] == value for p in each)}


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
