"""What several files of hits must share to be fitted together, and the chips that measured them."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as o
from .chain import Chain, read_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from hepops.lartpc import Channels, Chip, Detector

Config = dict[str, Any]


def tables(**paths: str | None) -> dict[str, str]:
    """A digest of each table that a simulation reads, by name; numbers and built-in ones have none."""
    found = {name: Path(path) for name, path in paths.items() if path is not None and Path(path).is_file()}
    return {name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for name, path in found.items()}


def refuse_others(paths: list[Path], configs: list[Config], offset: str | None, named: bool, given: Config) -> None:
    """Files that were not simulated or read alike.

    Args:
        paths: The files of hits.
        configs: What each says of itself.
        offset: Of the command line.
        named: Whether the command line names the detector, whatever the files say.
        given: Fields of `Chain` that it decides; None those that it does not.

    Raises:
        ValueError: one differs from the first, by name.
    """
    first = _common(configs[0], offset, named, given)
    for path, config in zip(paths[1:], configs[1:], strict=True):
        for name, value in _common(config, offset, named, given).items():
            if value != first[name]:
                raise ValueError(f"{path}: has another {name} than {paths[0]}; fit them one by one")


def _common(config: Config, offset: str | None, named: bool, given: Config) -> Config:
    chain = Chain.from_config(config).but(**{**given, "dtype": "float64"})
    return {
        "detector": None if named else config.get("detector"),
        "simulator": chain.to_dict(),
        "way of reading its tracks": o._as_read(config, offset),
        "kind of hits (with noise, without)": noisy(config),
    }


def noisy(config: Config) -> bool:
    """Whether a clock made the hits, the simulated one or a real one."""
    return config.get("seed") is not None or bool(config.get("measured"))


def chip_of(paths: list[Path], configs: list[Config], detector: "Detector") -> "Chip | None":
    """The chips that measured all files; None: they are what the detector states.

    Constants of channels that `import-packets` has left beside the hits, and thresholds that `simulate` was given.

    Raises:
        ValueError: files whose channels differ, with the first pixel; a table that has changed since.
        FileNotFoundError: a table that is not there.
    """
    from hepops.lartpc import Channels, Chip

    if not any(config.get("threshold") is not None or "channels" in config for config in configs):
        return None
    threshold = _threshold(paths[0], configs[0], detector)
    first = _channels(paths[0], configs[0], detector, threshold)
    for path, config in zip(paths[1:], configs[1:], strict=True):
        other = _channels(path, config, detector, _threshold(path, config, detector))
        _refuse_different(paths[0], first, path, other, detector)
    if any("channels" in config for config in configs):
        return first.chip(detector)
    plain = Channels.default(detector)
    return None if bool((first.threshold == plain.threshold).all()) else Chip.of(detector, threshold=threshold)


def _channels(path: Path, config: Config, detector: "Detector", threshold: "float | Tensor | None") -> "Channels":
    from hepops.lartpc import Channels

    if "channels" in config:
        return Channels.load(path.with_name(config["channels"]), detector)
    plain = Channels.default(detector)
    return plain if threshold is None else plain.replace(threshold=plain.threshold * 0 + threshold)


def _threshold(path: Path, config: Config, detector: "Detector") -> "float | Tensor | None":
    text = config.get("threshold")
    known = config.get("tables", {}).get("threshold")
    if known is not None and tables(threshold=text).get("threshold", known) != known:
        raise ValueError(f"{text}: has changed since {path} was simulated with it")
    return read_threshold(text, detector)


def _refuse_different(path: Path, a: "Channels", other: Path, b: "Channels", detector: "Detector") -> None:
    """Dead channels have no constants to differ in."""
    alive = a.status != 1
    for name in ("status", *(n for n in a.columns() if n != "status")):
        x, y = a.columns()[name], b.columns()[name]
        different = x != y if name == "status" else (x != y) & alive
        if bool(different.any()):
            pixel = different.nonzero()[:, 0]
            tpc, ix, iy = (int(v) for v in detector.pixel_from_id(pixel[:1]))
            raise ValueError(
                f"{other}: {name} of pixel {int(pixel[0])} (tpc {tpc}, ix {ix}, iy {iy}) is {y[pixel[0]].item():g}, in "
                f"{path} it is {x[pixel[0]].item():g} ({len(pixel)} pixels differ): fit them one by one"
            )
