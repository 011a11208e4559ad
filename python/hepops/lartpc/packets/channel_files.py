"""The tiles of larnd-sim's files, for `ChannelMap.from_yaml`: pixel layouts [mm] and detector properties [cm]."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..detector import Detector
from .channel_map import _MM, Tile

_TABLES = ("chip_channel_to_position", "tile_positions", "tile_orientations", "tile_indeces", "tile_chip_to_io")
_BROKEN = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError)

Layouts = list[dict[int, tuple[int, int]]]


def read(
    properties: Path, layout: str | Path | Sequence[str | Path], detector: Detector, module: int | None
) -> tuple[Layouts, list[Tile]]:
    """Layouts and tiles, see `ChannelMap`."""
    paths = [Path(p) for p in ([layout] if isinstance(layout, str | Path) else layout)]
    keys = {str(key).lower(): value for key, value in load(properties).items()}
    files = {path: _layout(path) for path in dict.fromkeys(paths)}
    modules = _modules(properties, keys, len(detector.tpcs) if module is None else None)
    if module is not None and module not in modules:
        raise ValueError(f"module must be one of {modules}, got {module}")
    tiles: list[Tile] = []
    first = 0  # the detector's TPCs are its modules' anodes, in the order of their numbers
    for number, name in enumerate(modules):
        if module not in (None, name):
            continue
        path = paths[number if len(paths) > 1 else 0]
        table = files[path]
        groups = _io_groups(properties, keys, number, table)
        try:
            anodes = sorted({int(index[-2]) for index in table["tile_indeces"].values()})
            mine = _tiles(path, table, anodes, first, groups, list(files).index(path), detector)
            _check_map(properties, keys.get("tile_map"), list(table["tile_positions"]), mine, first)
        except _BROKEN as error:
            raise ValueError(f"{path}: makes no channel map ({type(error).__name__}: {error})") from None
        tiles += mine
        first += len(anodes)
    if first != len(detector.tpcs):
        raise ValueError(f"{properties}: has {first} anodes, {detector.name} has {len(detector.tpcs)} TPCs")
    return [file["pixels"] for file in files.values()], tiles


def load(path: Path) -> dict[Any, Any]:
    """A YAML file of keys and values, errors in one line."""
    import yaml

    try:
        with path.open() as file:
            content = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold keys and values, got {type(content).__name__}")
    return content


def _layout(path: Path) -> dict[str, Any]:
    content = load(path)
    for key in _TABLES:
        if not isinstance(content.get(key), dict) or not content[key]:
            raise ValueError(f"{path}: {key} is missing")
    try:
        content["pixels"] = {
            (int(k) // 1000) * 64 + int(k) % 1000: (int(column), int(row))
            for k, (column, row) in content["chip_channel_to_position"].items()
        }
        content["largest_group"] = max(
            int(n) // 1000 for io in content["tile_chip_to_io"].values() for n in io.values()
        )
    except _BROKEN as error:
        raise ValueError(f"{path}: makes no channel map ({type(error).__name__}: {error})") from None
    beyond = next((k for k in content["chip_channel_to_position"] if not 0 <= int(k) % 1000 < 64), None)
    if beyond is not None:
        raise ValueError(f"{path}: channels count to 63, chip_channel_to_position has {beyond}")
    return content


def _modules(path: Path, keys: dict[str, Any], tpcs: int | None) -> list[int]:
    """The modules' numbers in the order of their offsets, as Detector.from_yaml counts them."""
    table = keys.get("module_to_tpcs")
    if isinstance(table, dict):
        return [int(m) for m in table]
    if isinstance(keys.get("tpc_offsets"), list):
        return list(range(1, len(keys["tpc_offsets"]) + 1))
    if isinstance(keys.get("tpc_centers"), list):
        return list(range(1, max(1, len(keys["tpc_centers"]) // 2) + 1))
    raise ValueError(f"{path}: tpc_offsets (or tpc_centers) is missing")


def _io_groups(path: Path, keys: dict[str, Any], number: int, table: dict[str, Any]) -> list[int]:
    """The io_groups of a module: the k-th is the layout's io_group k."""
    largest: int = table["largest_group"]
    known = keys.get("module_to_io_groups")
    if known is None:
        return [number * largest + k + 1 for k in range(largest)]
    # module_to_tpcs of ND-LAr's file counts modules from 0, module_to_io_groups from 1: the order decides.
    groups = list(known.values())[number] if isinstance(known, dict) and number < len(known) else None
    if not isinstance(groups, list) or len(groups) < largest:
        raise ValueError(
            f"{path}: module_to_io_groups must name {largest} io_groups of module {number + 1}, got {groups!r:.60}"
        )
    return [int(g) for g in groups]


def _check_map(path: Path, tile_map: Any, names: list[Any], tiles: list[Tile], first: int) -> None:
    """Refuse properties that put the tiles elsewhere than the layout: larnd-sim would number the pixels by them."""
    if tile_map is None:
        return
    for name, tile in zip(names, tiles, strict=True):
        columns = sorted({t.column for t in tiles if t.tpc == tile.tpc})
        rows = sorted({t.row for t in tiles if t.tpc == tile.tpc})
        there = tile_map[tile.tpc - first][columns.index(tile.column)][rows.index(tile.row)]
        if there != name:
            raise ValueError(f"tile_map of {path} has tile {there} where the layout has tile {name}")


def _tiles(
    path: Path, table: dict[str, Any], anodes: list[int], first: int, groups: list[int], layout: int, detector: Detector
) -> list[Tile]:
    columns = 1 + max(p[0] for p in table["pixels"].values())
    rows = 1 + max(p[1] for p in table["pixels"].values())
    found = []
    for name, (_, y, z) in table["tile_positions"].items():
        anode = anodes.index(int(table["tile_indeces"][name][-2]))
        tpc, pitch = detector.tpcs[first + anode], detector.pitch_of(first + anode)
        # The frame of the module: its plane's centre is that of its tiles, whatever offset the module has.
        mates = [p for n, p in table["tile_positions"].items() if table["tile_indeces"][n][-2] == anodes[anode]]
        low_y, low_z = min(p[1] for p in mates), min(p[2] for p in mates)
        column = round((z - low_z) * _MM / pitch / columns) * columns
        row = round((y - low_y) * _MM / pitch / rows) * rows
        if column + columns > tpc.nx or row + rows > tpc.ny:
            raise ValueError(f"tile {name} lies beyond the {tpc.nx} x {tpc.ny} pixels of TPC {first + anode}")
        _, up, along = table["tile_orientations"][name]
        io = {
            int(c): 256 * groups[int(n) // 1000 - 1] + int(n) % 1000 for c, n in table["tile_chip_to_io"][name].items()
        }
        found.append(Tile(first + anode, column, row, (along < 0, up < 0), layout, io))
    return found
