"""What a network is made of, from keyword arguments, a dictionary as SPINE's, or a YAML file.

Names and meanings are those of SPINE's configurations, so that its files go on unchanged; the second names are ours:
`num_input` (`in_channels`), `data_dim` (`dimension`), `allow_bias` (`bias`), `norm_layer` (`norm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

Component = str | Mapping[str, Any]
Source = Mapping[str, Any] | str | Path | None

ALIASES = {"in_channels": "num_input", "dimension": "data_dim", "bias": "allow_bias", "norm": "norm_layer"}


@dataclass(frozen=True)
class Configuration:
    """The options that all backbones share.

    Args:
        filters: channels of the finest level; level l = 1 ... depth has l times as many.
        depth: levels, each at twice the stride of the one before.
        reps: blocks on each level.
        num_input: channels of the input.
        input_kernel: size of the first convolution's kernel.
        kernel_size: size of the kernels within the blocks.
        dilations: of the kernels within the blocks, one number, or one for each level.
        data_dim: D, spatial axes, 1 to 6.
        allow_bias: whether convolutions have a bias.
        activation: name, or {"name": ..., arguments}; see `make_activation`.
        norm_layer: name, or {"name": ..., arguments}; see `make_norm`.
        spatial_size: extent of the image [voxels], where coordinates are normalised or a convolution pools them.
        lattice: {"period": p}: in training, each event is shifted by a random 0 ... p - 1 along each axis before the
            voxels are grouped into coarser ones; "auto" takes the coarsest stride.
        bottleneck: a block on the coarsest level, {"name": "spp" | "aspp" | "cascade", arguments}.

    Raises:
        ValueError: a number below 1, an unknown option, or dilations that are not one for each level.

    Example:
        >>> Configuration.of({"filters": 16, "depth": 3, "reps": 1}, in_channels=2).planes
        (16, 32, 48)
    """

    filters: int = 32
    depth: int = 5
    reps: int = 2
    num_input: int = 1
    input_kernel: int = 3
    kernel_size: int = 3
    dilations: int | Sequence[int] = 1
    data_dim: int = 3
    allow_bias: bool = False
    activation: Component = "lrelu"
    norm_layer: Component = "batch_norm"
    spatial_size: int | None = None
    lattice: Mapping[str, Any] | None = None
    bottleneck: Component | None = None

    def __post_init__(self) -> None:
        for name in ("filters", "depth", "reps", "num_input", "input_kernel", "kernel_size", "data_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.data_dim > 6:
            raise ValueError(f"data_dim must be 1 to 6, got {self.data_dim}")
        if self.spatial_size is not None and self.spatial_size < 1:
            raise ValueError(f"spatial_size must be at least 1, got {self.spatial_size}")
        dilations = [self.dilations] * self.depth if isinstance(self.dilations, int) else list(self.dilations)
        if len(dilations) != self.depth:
            raise ValueError(f"dilations must be one number or {self.depth} (depth), got {self.dilations!r}")
        if any(d < 1 for d in dilations):
            raise ValueError(f"dilations must be at least 1, got {self.dilations!r}")
        object.__setattr__(self, "dilations", tuple(dilations))

    @staticmethod
    def of(source: Source | Configuration = None, **options: Any) -> Configuration:
        """From a mapping, a YAML file's name, a Configuration or nothing, with keyword arguments on top."""
        if isinstance(source, Configuration):
            return replace(source, **canonical(options))
        given = {**canonical(read(source)), **canonical(options)}
        known = {field.name for field in fields(Configuration)}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise ValueError(f"unknown option {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return Configuration(**given)

    @property
    def planes(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.filters * level for level in range(1, self.depth + 1))

    def dilation(self, level: int) -> int:
        """Of the kernels within the blocks of a level, 0 the finest."""
        return tuple(self.dilations)[level]  # type: ignore[arg-type]


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options under SPINE's names.

    Raises:
        ValueError: an option is given under both of its names.
    """
    result: dict[str, Any] = {}
    for name, value in options.items():
        name = ALIASES.get(name, name)
        if name in result:
            raise ValueError(f"option {name} is given twice")
        result[name] = value
    return result


def read(source: Source) -> dict[str, Any]:
    """The options in a mapping or a YAML file; of a whole SPINE configuration, those of its one network.

    Raises:
        ValueError: the file holds no mapping.
    """
    if source is None:
        return {}
    if isinstance(source, (str, Path)):
        import yaml  # here, so that importing hepops stays light

        with open(source, encoding="utf-8") as file:
            source = yaml.safe_load(file)
        if not isinstance(source, Mapping):
            raise ValueError("the configuration file must hold a mapping of options")
    options = dict(source)
    # SPINE nests them: model: modules: <name of the network>: ...; its loss stands beside the network.
    for outer in ("model", "modules"):
        if isinstance(options.get(outer), Mapping):
            options = dict(options[outer])
    nested = {name: value for name, value in options.items() if not name.endswith("_loss")}
    if len(nested) == 1 and isinstance(next(iter(nested.values())), Mapping):
        inner = next(iter(nested))
        if inner not in {f.name for f in fields(Configuration)} | {"backbone"}:
            return dict(nested[inner])
    return options


def component(source: Component) -> tuple[str, dict[str, Any]]:
    """Name and arguments of {"name": ..., arguments}; SPINE also says "provider", and puts arguments under "config".

    Raises:
        ValueError: there is no name, or two.
    """
    if isinstance(source, str):
        return source, {}
    options = dict(source)
    names = [options.pop(key) for key in ("name", "provider") if key in options]
    if len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f"a component needs one name, got {dict(source)!r}")
    inner = options.pop("config", None)
    return names[0], {**options, **(inner or {})}
