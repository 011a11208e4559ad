"""larnd-sim's files of detector properties [cm] and pixel layouts [mm], in both dialects, as fields of `Detector`.

Each anode's pixel plane spans its tiles, x_anode + drift_length * orientation is the cathode; one offset per module
(`tpc_offsets`, larnd-sim) or per anode (`tpc_centers`, larnd-sim-jax) is added. As in larnd-sim, consts/detector.py.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ._model import nearest
from .detector import TPC, FrontEnd, Module
from .parameters import Parameters

# Keys, in lower case, and what they set.
_NOMINAL = {
    "efield": "efield", "e_field": "efield", "lifetime": "lifetime", "temperature": "temperature",
    "long_diff": "longitudinal_diffusion", "tran_diff": "transverse_diffusion", "lardensity": "density",
    "ab": "birks_a", "kb": "birks_k", "alpha": "box_alpha", "beta": "box_beta",
}  # fmt: skip
_FRONTEND = {
    "discrimination_threshold": "threshold", "adc_hold_delay": "hold", "adc_busy_delay": "busy",
    "reset_cycles": "reset", "reset_noise_charge": "reset_noise", "uncorrelated_noise_charge": "uncorrelated_noise",
    "discriminator_noise": "discriminator_noise", "buffer_risetime": "buffer_risetime", "gain": "gain",
    "larpix_gain": "gain", "v_cm": "v_cm", "v_ref": "v_ref", "v_pedestal": "v_ped",
}  # fmt: skip
_OTHER = {"mevtoelectrons", "adc_counts", "clock_cycle", "drift_length", "tpc_offsets", "tpc_centers", "module_to_tpcs"}
# Known, and without effect on charge here; so is whatever begins with light_.
_UNUSED = {
    "time_interval", "time_padding", "time_window", "time_max", "vdrift", "vdrift_static", "response_sampling",
    "response_bin_size", "tile_map", "module_to_io_groups", "singlet_fraction", "tau_s", "tau_t", "n_op_channel",
    "tpc_to_op_channel", "op_channel_efficiency", "enable_lut_smearing", "sipm_response_model", "impulse_model",
    "impulse_tick_size", "lut_vox_div", "max_light_truth_ids", "mc_truth_threshold", "periodic_reset_cycles",
    "rollover_cycles", "pps_cycles", "use_pps_rollover", "clock_reset_period", "adc_scale_factor", "larpix_version",
    "event_rate", "non_beam_event_gap", "diff_n_sigmas", "max_radius", "max_active_pixels", "max_adc_values",
    "min_step_size", "electron_sampling_resolution", "number_pix_neighbors", "signal_length", "size_margin", "e_charge",
    "t_sampling", "tran_diff_bin_edges",
}  # fmt: skip
_LAYOUT = {"pixel_pitch", "chip_channel_to_position", "tile_positions", "tile_orientations", "tile_indeces"}
_LAYOUT_OTHER = {"drift_length", "multitile_layout_version", "tile_layout_version", "tile_chip_to_io", "tpc_centers"}

_MM = 0.1  # [cm]
Vector = tuple[float, float, float]


_BROKEN = (KeyError, TypeError, AttributeError, IndexError, ArithmeticError)  # what a file of odd shape may raise


def read(
    properties: str | Path, layout: str | Path | Sequence[str | Path], module: int | None, name: str | None
) -> dict[str, Any]:
    """Fields of `Detector`; see `Detector.from_yaml`."""
    path = Path(properties)
    layouts = [Path(p) for p in ([layout] if isinstance(layout, str | Path) else layout)]
    try:
        return _read(path, layouts, module, name)
    except _BROKEN as error:
        names = ", ".join(str(p) for p in (path, *layouts))
        raise ValueError(f"{names}: make no detector ({type(error).__name__}: {error})") from error


def _read(path: Path, layouts: list[Path], module: int | None, name: str | None) -> dict[str, Any]:
    found = _load(path)
    keys = {str(key).lower(): value for key, value in found.items()}
    spelled = {str(key).lower(): key for key in found}
    if len(keys) < len(found):
        raise ValueError(f"{path}: a key stands twice, in two cases of letters")
    ignored = [key for key in found if _refuse_unknown(path, str(key))]

    planes = {p: _planes(p) for p in layouts}
    ignored += [f"{p.name}: tpc_centers" for p in planes if planes[p]["centres"]]
    anodes = {len(plane["anodes"]) for plane in planes.values()}
    if len(anodes) != 1:
        raise ValueError(f"layouts must have as many anodes each, got {sorted(anodes)}")

    offsets = _offsets(path, keys, anodes.pop())
    modules = _modules(path, keys, offsets)
    if len(layouts) not in (1, len(offsets)):
        raise ValueError(f"layout must be one, or one for each of {len(offsets)} modules, got {len(layouts)}")
    if module is not None and module not in modules:
        raise ValueError(f"module must be one of {modules}, got {module}")
    kept = [i for i, m in enumerate(modules) if module in (None, m)]
    per_module = [planes[layouts[i if len(layouts) > 1 else 0]] for i in kept]
    values = _Values(path, keys, spelled, len(modules))
    if len(layouts) > 1 and "response_bin_size" in keys:
        for i, plane in zip(kept, per_module, strict=True):
            _refuse_other_pitch(path, layouts[i], modules[i], plane["pitch"], values("response_bin_size", i))
    pitch = per_module[0]["pitch"]
    tpcs = [
        tpc
        for i, plane in zip(kept, per_module, strict=True)
        for tpc in _tpcs(plane, offsets[i], modules[i], values.length(i), None if plane["pitch"] == pitch else pitch)
    ]
    own = [(_nominal(values, i), _frontend(values, i)) for i in kept]
    nominal, frontend = own[0]
    differing = [
        Module(number=modules[i], nominal=n if n != nominal else None, frontend=f if f != frontend else None)
        for i, (n, f) in zip(kept, own, strict=True)
        if (n, f) != own[0]
    ]
    fields = dict(tpcs=tuple(tpcs), pixel_pitch=pitch, ignored=tuple(ignored), name=name or path.stem)
    fields |= dict(nominal=nominal, frontend=frontend, modules=tuple(differing))
    return fields | ({"tick": values.shared("clock_cycle", kept)} if "clock_cycle" in keys else {})


class _Values:
    """Numbers of the property file, module by module: a list holds one number, or one for each module."""

    def __init__(self, path: Path, keys: dict[str, Any], spelled: dict[str, Any], modules: int):
        self.path, self.keys, self.spelled, self.modules = path, keys, spelled, modules

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def __call__(self, key: str, module: int) -> Any:
        value, name = self.keys[key], self.spelled[key]
        if not isinstance(value, list):
            return value
        if len(value) not in (1, self.modules):
            raise ValueError(f"{self.path}: {name} must hold 1 or {self.modules} values, got {len(value)}")
        if any(v is None or isinstance(v, list | dict) for v in value):
            raise ValueError(f"{self.path}: {name} must hold numbers, got {value!r:.60}")
        return value[module if len(value) > 1 else 0]

    def number(self, key: str, module: int) -> float:
        return _number(self.path, self.spelled[key], self(key, module))

    def length(self, module: int) -> float | None:
        return self.number("drift_length", module) if self.keys.get("drift_length") is not None else None

    def shared(self, key: str, modules: list[int]) -> float:
        """A number that must be the same in all."""
        chosen = {self.number(key, i) for i in modules}
        if len(chosen) > 1:
            raise ValueError(
                f"{self.path}: modules differ in {self.spelled[key]}, {self.keys[key]}: choose one with module="
            )
        return chosen.pop()


def _nominal(values: _Values, module: int) -> Parameters:
    nominal = {field: values(key, module) for key, field in _NOMINAL.items() if key in values}
    if "mevtoelectrons" in values:
        yielded = values.number("mevtoelectrons", module)
        if not yielded > 0:
            name = values.spelled["mevtoelectrons"]
            raise ValueError(f"{values.path}: {name} must be positive, got {yielded:g}")
        nominal["w_ion"] = 1 / yielded
    made: Parameters = _record(values.path, Parameters, nominal)
    return made


def _frontend(values: _Values, module: int) -> FrontEnd:
    frontend = {field: values(key, module) for key, field in _FRONTEND.items() if key in values}
    if "adc_counts" in values:
        frontend["adc_bits"] = _bits(values.path, values("adc_counts", module))
    made: FrontEnd = _record(values.path, FrontEnd, frontend)
    return made


def _refuse_other_pitch(path: Path, layout: Path, module: int, pitch: float, bin_size: Any) -> None:
    """The bins of a response are a tenth of its module's pitch: a layout of another pitch is another module's.

    larnd-sim's older 2x2 properties have 0.038 for pixels of 0.387975 cm: 2 % are allowed, and a little more.
    """
    if abs(10 * _number(path, "response_bin_size", bin_size) / pitch - 1) > 0.03:
        raise ValueError(
            f"{layout}: its pitch of {pitch} cm is not that of module {module}, whose response_bin_size in {path.name} "
            f"is {bin_size} cm, a tenth of its pitch: are the layouts in the order of the modules?"
        )


def _load(path: Path) -> dict[Any, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: the layouts take 20 times longer without
    try:
        with path.open() as file:
            content = yaml.load(file, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold keys and values, got {type(content).__name__}")
    return content


def _refuse_unknown(path: Path, key: str) -> bool:
    """True for a key without effect; an unknown one raises."""
    used = _NOMINAL.keys() | _FRONTEND.keys() | _OTHER
    if key.lower() in used:
        return False
    if key.lower() in _UNUSED or key.lower().startswith("light_"):
        return True
    if key in _LAYOUT:
        raise ValueError(f"{path}: {key!r} is a key of a layout, not of properties: are the two files swapped?")
    raise ValueError(f"{path}: unknown key {key!r}, {nearest(key, sorted(used | _UNUSED))}")


def _record(path: Path, record: type[Any], values: dict[str, Any]) -> Any:
    try:
        return record(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _bits(path: Path, counts: Any) -> int:
    if not isinstance(counts, int) or counts < 2 or counts & (counts - 1):
        raise ValueError(f"{path}: adc_counts must be a power of 2, got {counts!r}")
    return counts.bit_length() - 1


def _offsets(path: Path, keys: dict[str, Any], anodes: int) -> list[list[Vector]]:
    """One vector [cm] per anode, for each module."""
    if "tpc_offsets" in keys:
        return [[_vector(path, "tpc_offsets", v)] * anodes for v in _list(path, "tpc_offsets", keys["tpc_offsets"])]
    if "tpc_centers" not in keys:
        raise ValueError(f"{path}: tpc_offsets (or tpc_centers) is missing")
    centres = [_vector(path, "tpc_centers", v) for v in _list(path, "tpc_centers", keys["tpc_centers"])]
    if len(centres) % anodes:
        raise ValueError(f"{path}: tpc_centers must hold one entry for each of {anodes} anodes, got {len(centres)}")
    return [centres[i : i + anodes] for i in range(0, len(centres), anodes)]


def _modules(path: Path, keys: dict[str, Any], offsets: list[Any]) -> list[int]:
    table = keys.get("module_to_tpcs")
    if table is None:
        return list(range(1, len(offsets) + 1))
    if not isinstance(table, dict) or len(table) != len(offsets):
        raise ValueError(f"{path}: module_to_tpcs must name {len(offsets)} modules, got {table!r:.60}")
    return [_integer(path, "module_to_tpcs", m) for m in table]


def _planes(path: Path) -> dict[str, Any]:
    """The anodes of a layout, in the order of their number: positions of the tiles, direction of the cathode [cm]."""
    layout = _load(path)
    for key in layout:
        if str(key).lower() in _NOMINAL.keys() | _FRONTEND.keys():
            raise ValueError(f"{path}: {key!r} is a key of properties, not of a layout: are the two files swapped?")
        if key not in _LAYOUT | _LAYOUT_OTHER:
            raise ValueError(f"{path}: unknown key {key!r}, {nearest(str(key), sorted(_LAYOUT | _LAYOUT_OTHER))}")
    for key in sorted(_LAYOUT):
        if key not in layout:
            raise ValueError(f"{path}: {key} is missing")
    pitch = _number(path, "pixel_pitch", layout["pixel_pitch"]) * _MM
    columns, rows = _places(path, layout["chip_channel_to_position"])
    _refuse_gaps(path, columns, rows)
    positions, indices, orientations = (
        _table(path, key, layout[key]) for key in ("tile_positions", "tile_indeces", "tile_orientations")
    )
    tiles: dict[int, list[Vector]] = {}
    directions: dict[int, set[float]] = {}
    for tile, position in positions.items():
        # [anode, tile], or [module, anode, tile] before layout 2.3
        anode = _integer(path, "tile_indeces", _entry(path, "tile_indeces", indices, tile, 2)[-2])
        x, y, z = _vector(path, "tile_positions", position)
        tiles.setdefault(anode, []).append((x * _MM, y * _MM, z * _MM))
        directions.setdefault(anode, set()).add(
            _number(path, "tile_orientations", _entry(path, "tile_orientations", orientations, tile, 1)[0])
        )
    for anode, signs in directions.items():
        if len(signs) != 1 or not signs <= {1, -1}:
            raise ValueError(f"{path}: tile_orientations of anode {anode} must be all 1 or all -1, got {sorted(signs)}")
    return dict(
        pitch=round(pitch, 9),
        shape=(max(columns) + 1, max(rows) + 1),  # pixels of a tile along z, y
        anodes=[(tiles[a], directions[a].copy().pop()) for a in sorted(tiles)],
        length=_number(path, "drift_length", layout["drift_length"]) * _MM if "drift_length" in layout else None,
        centres=_centred(path, layout),
    )


def _places(path: Path, table: Any) -> tuple[list[int], list[int]]:
    """Columns and rows of the pixels of a tile."""
    key = "chip_channel_to_position"
    places = _table(path, key, table).values()
    for place in places:
        if not (isinstance(place, list) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place)):
            raise ValueError(f"{path}: {key} must hold [column, row], from 0, got {place!r:.60}")
    return [place[0] for place in places], [place[1] for place in places]


def _refuse_gaps(path: Path, columns: list[int], rows: list[int]) -> None:
    """Every pixel of a tile has one channel."""
    width, height = max(columns) + 1, max(rows) + 1
    counts = [0] * (width * height)
    for column, row in zip(columns, rows, strict=True):
        counts[row * width + column] += 1
    for wrong, what in ((0, "no channel"), (2, "more than one channel")):
        pixels = [i for i, n in enumerate(counts) if (n == 0 if wrong == 0 else n >= wrong)]
        if pixels:
            first = [pixels[0] % width, pixels[0] // width]
            raise ValueError(
                f"{path}: chip_channel_to_position leaves {len(pixels)} of {width} x {height} pixels with {what}, "
                f"the first is {first}"
            )


def _centred(path: Path, layout: dict[Any, Any]) -> bool:
    """Whether the layout states centres of its own that are not the origin."""
    if "tpc_centers" not in layout:
        return False
    table = layout["tpc_centers"]
    if table == {}:
        return False
    return any([any(_vector(path, "tpc_centers", v)) for v in _table(path, "tpc_centers", table).values()])


def _tpcs(
    plane: dict[str, Any], offsets: list[Vector], module: int, length: float | None, other: float | None
) -> Iterable[TPC]:
    """Sums are rounded to 1e-9 cm: the files state 1e-5, and equal detectors shall compare equal.

    `other` is the detector's pitch where the plane has a pitch of its own.
    """
    (columns, rows), pitch = plane["shape"], plane["pitch"]
    half = 0.5 * (max(t[0] for a, _ in plane["anodes"] for t in a) - min(t[0] for a, _ in plane["anodes"] for t in a))
    drift = next(d for d in (plane["length"], length, half) if d is not None)
    for (tiles, direction), (dx, dy, dz) in zip(plane["anodes"], offsets, strict=True):
        xs, ys, zs = (sorted({tile[axis] for tile in tiles}) for axis in range(3))
        if len(xs) != 1:
            raise ValueError(f"tiles of one anode must share x, got {xs} cm")
        yield TPC(
            anode=round(xs[0] + dx, 9),
            cathode=round(xs[0] + drift * direction + dx, 9),
            y=_span(ys, rows * pitch, dy),
            z=_span(zs, columns * pitch, dz),
            ny=rows * len(ys),
            nx=columns * len(zs),
            module=module,
            pitch=None if other is None else pitch,
        )


def _span(centres: list[float], tile: float, shift: float) -> tuple[float, float]:
    """The edges of a row of tiles."""
    return round(centres[0] - tile / 2 + shift, 9), round(centres[-1] + tile / 2 + shift, 9)


def _list(path: Path, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{path}: {key} must be a list of [x, y, z], got {value!r:.60}")
    return value


def _table(path: Path, key: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path}: {key} must hold keys and values, got {value!r:.60}")
    return value


def _entry(path: Path, key: str, table: dict[Any, Any], tile: Any, least: int) -> list[Any]:
    """The list that belongs to a tile."""
    if tile not in table:
        raise ValueError(f"{path}: {key} has no entry for tile {tile!r}")
    value = table[tile]
    if not isinstance(value, list) or len(value) < least:
        raise ValueError(f"{path}: {key} of tile {tile!r} must be a list of at least {least}, got {value!r:.60}")
    return value


def _integer(path: Path, key: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: {key} must hold whole numbers, got {value!r:.60}") from None


def _vector(path: Path, key: str, value: Any) -> Vector:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{path}: {key} must hold [x, y, z], got {value!r:.60}")
    x, y, z = (_number(path, key, v) for v in value)
    return x, y, z


def _number(path: Path, key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {key} must be a number, got {value!r:.60}") from None
