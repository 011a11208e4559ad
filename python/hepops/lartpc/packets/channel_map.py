"""Which chip and channel reads which pixel: (io_group, io_channel, chip, channel) and back.

A plane of pixels is made of tiles. On a tile the layout's `chip_channel_to_position` says which pixel [column, row] a
channel reads, `tile_orientations` whether the tile stands turned, `tile_chip_to_io` which io_group and io_channel read
a chip; the io_group counts within a module, `module_to_io_groups` makes it unique. Columns run along z, rows along y.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..detector import Detector
from .format import Array

_MM = 0.1  # [cm]
SIDE = 80  # pixels on the side of a tile of the built-in numbering, 10 x 10 chips as DUNE's tiles have
CHIP = 8  # pixels on the side of a chip of the built-in numbering: 64 channels
FIRST_CHIP = 11  # as on DUNE's tiles


class Address(NamedTuple):
    """Where pixels are read, int64 each; -1 where no channel reads a pixel."""

    io_group: Tensor
    io_channel: Tensor
    chip: Tensor
    channel: Tensor


class Tile(NamedTuple):
    """One tile of a plane."""

    tpc: int
    column: int  # of its lowest pixel in the plane (ix)
    row: int  # of its lowest pixel in the plane (iy)
    flip: tuple[bool, bool]  # whether columns, rows count down
    layout: int  # which of the layouts
    io: dict[int, int]  # chip -> 256 io_group + io_channel


class ChannelMap:
    """Pixels of a detector and the channels that read them, one to one.

    Made by `builtin` (an own numbering, for detectors without layout files) or `from_yaml` (larnd-sim's files).

    Args:
        detector: Whose pixels.
        layouts: Per layout a mapping of 64 chip + channel to (column, row) on a tile.
        tiles: The tiles.

    Raises:
        ValueError: a channel reads two pixels, a pixel is read by two channels, or lies beyond the plane.

    Example:
        >>> channel_map = ChannelMap.builtin(Detector.module0())
        >>> address = channel_map.address(torch.tensor([0, 140]))
        >>> address.io_group, address.chip, address.channel
        (tensor([1, 1]), tensor([11, 11]), tensor([0, 8]))
        >>> channel_map.pixel(*address)
        tensor([  0, 140])
    """

    def __init__(self, detector: Detector, layouts: Sequence[dict[int, tuple[int, int]]], tiles: Sequence[Tile]):
        self.detector = detector
        self.tiles = tuple(tiles)
        geometry = detector.geometry
        self._nx, self._ny = geometry.nx.numpy(), geometry.ny.numpy()
        self._first = geometry.first_pixel.numpy()
        self._shape, self._place, self._pad = self._tables(layouts)
        self._tpc = np.array([t.tpc for t in tiles], np.int64)
        self._corner = np.array([(t.column, t.row) for t in tiles], np.int64).reshape(-1, 2)
        self._flip = np.array([t.flip for t in tiles], bool).reshape(-1, 2)
        self._layout = np.array([t.layout for t in tiles], np.int64)
        self._wire()
        self._cover()

    def _tables(self, layouts: Sequence[dict[int, tuple[int, int]]]) -> tuple[Array, Array, Array]:
        """Columns and rows of a tile; place of each channel; channel of each place; -1 where there is none."""
        shape = np.array([np.array(list(layout.values())).max(0) + 1 for layout in layouts], np.int64)
        place = np.full((len(layouts), 256 * 64, 2), -1, np.int64)
        pad = np.full((len(layouts), *shape.max(0)), -1, np.int64)
        for i, layout in enumerate(layouts):
            channel, where = np.array(list(layout)), np.array(list(layout.values()))
            if channel.min() < 0 or channel.max() >= 256 * 64:
                raise ValueError("ChannelMap: a layout has chips beyond 0 ... 255 or channels beyond 0 ... 63")
            place[i, channel] = where
            pad[i, where[:, 0], where[:, 1]] = channel
            twice = np.flatnonzero(pad[i, where[:, 0], where[:, 1]] != channel)
            if len(twice):
                column, row = where[twice[0]]
                raise ValueError(f"ChannelMap: two channels read the pixel [{column}, {row}] of a tile")
        return shape, place, pad

    def _wire(self) -> None:
        """The tile of each (io_group, io_channel, chip), and back."""
        self._io = np.full((len(self.tiles), 256), -1, np.int64)
        for number, tile in enumerate(self.tiles):
            chips, nodes = np.array(list(tile.io), np.int64), np.array(list(tile.io.values()), np.int64)
            if len(chips) and (min(chips.min(), nodes.min()) < 0 or chips.max() > 255 or nodes.max() > 0xFFFF):
                raise ValueError(f"ChannelMap: tile {number + 1} has chips, io_groups or io_channels beyond 0 ... 255")
            self._io[number, chips] = nodes
        which, chip = np.nonzero(self._io >= 0)
        node = self._io[which, chip]
        self._lanes = np.unique(node)
        self._lane = np.full(1 << 16, -1, np.int64)  # number of an (io_group, io_channel)
        self._lane[self._lanes] = np.arange(len(self._lanes))
        self._tile = np.full((len(self._lanes), 256), -1, np.int64)
        self._tile[self._lane[node], chip] = which
        twice = np.flatnonzero(self._tile[self._lane[node], chip] != which)
        if len(twice):
            group, lane = divmod(int(node[twice[0]]), 256)
            raise ValueError(f"ChannelMap: two tiles have io_group {group}, io_channel {lane}, chip {chip[twice[0]]}")

    def _cover(self) -> None:
        """Which tile has each pixel; refuses tiles that overlap or lie beyond their plane."""
        owner = np.full(self.detector.num_pixels, -1, np.int32)
        for number, tile in enumerate(self.tiles):
            columns, rows = self._shape[tile.layout]
            nx, ny = self._nx[tile.tpc], self._ny[tile.tpc]
            if tile.column < 0 or tile.row < 0 or tile.column + columns > nx or tile.row + rows > ny:
                raise ValueError(f"ChannelMap: tile {number + 1} lies beyond the {nx} x {ny} pixels of TPC {tile.tpc}")
            plane = owner[self._first[tile.tpc] :][: nx * ny].reshape(ny, nx)
            part = plane[tile.row : tile.row + rows, tile.column : tile.column + columns]
            if (part >= 0).any():
                raise ValueError(f"ChannelMap: tiles {part.max() + 1} and {number + 1} of TPC {tile.tpc} overlap")
            part[:] = number
        self._owner = owner

    # ---- makers

    @classmethod
    def builtin(cls, detector: Detector) -> Self:
        """An own numbering, for detectors without layout files.

        io_group = TPC + 1; a plane is divided from its low edges into tiles of 80 x 80 pixels, io_channel = 1 + tile
        along z + tiles along z times tile along y; a tile into chips of 8 x 8, chip = 11 + chip along z + 10 times chip
        along y; channel = pixel along z + 8 times pixel along y.

        Raises:
            ValueError: more than 255 TPCs, or more than 255 tiles on a plane.
        """
        column, row = (a.ravel() for a in np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"))
        chips = FIRST_CHIP + column // CHIP + SIDE // CHIP * (row // CHIP)
        channel = 64 * chips + column % CHIP + CHIP * (row % CHIP)
        whole = dict(zip(channel.tolist(), zip(column.tolist(), row.tolist(), strict=True), strict=True))
        layouts: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}
        tiles = []
        if len(detector.tpcs) > 255:
            raise ValueError(f"ChannelMap: io_groups count to 255, {detector.name} has {len(detector.tpcs)} TPCs")
        for number, tpc in enumerate(detector.tpcs):
            along = -(-tpc.nx // SIDE)
            if along * -(-tpc.ny // SIDE) > 255:
                raise ValueError(
                    f"ChannelMap: io_channels count to 255, TPC {number} needs more tiles of {SIDE} x {SIDE}"
                )
            for j in range(0, tpc.ny, SIDE):
                for i in range(0, tpc.nx, SIDE):
                    size = min(SIDE, tpc.nx - i), min(SIDE, tpc.ny - j)
                    if size not in layouts:
                        layouts[size] = {k: p for k, p in whole.items() if p[0] < size[0] and p[1] < size[1]}
                    node = 256 * (number + 1) + 1 + i // SIDE + along * (j // SIDE)
                    io = dict.fromkeys({k >> 6 for k in layouts[size]}, node)
                    tiles.append(Tile(number, i, j, (False, False), list(layouts).index(size), io))
        return cls(detector, list(layouts.values()), tiles)

    @classmethod
    def from_yaml(
        cls,
        properties: str | Path,
        layout: str | Path | Sequence[str | Path],
        *,
        detector: Detector | None = None,
        module: int | None = None,
    ) -> Self:
        """The channels of larnd-sim's or larnd-sim-jax's files; the arguments are those of `Detector.from_yaml`.

        Args:
            properties: Detector properties. Without `module_to_io_groups` (the older dialect) the io_groups are the
                layout's, those of a second module count on.
            layout: Pixel layout, or a list with one for each module.
            detector: The detector of the same files, if there is one already.
            module: Keep one module alone.

        Raises:
            ValueError: the files contradict each other or the detector, named.
        """
        from .channel_files import read

        detector = detector or Detector.from_yaml(properties, layout, module=module)
        return cls(detector, *read(Path(properties), layout, detector, module))

    # ---- what it tells

    @property
    def num_channels(self) -> int:
        """How many channels read a pixel."""
        return int(self.connected.sum())

    @property
    def connected(self) -> Tensor:
        """Whether a channel reads each pixel, bool (detector.num_pixels)."""
        return self.address(torch.arange(self.detector.num_pixels)).chip >= 0

    @property
    def io_groups(self) -> list[int]:
        """All io_groups, rising."""
        return np.unique(self._lanes >> 8).tolist()

    def pixel(self, io_group: Tensor, io_channel: Tensor, chip: Tensor, channel: Tensor) -> Tensor:
        """`Detector.pixel_id` of channels, int64, of their shape; -1 for a channel, -2 for a chip that is not there.

        Deterministic; not differentiable.
        """
        return torch.from_numpy(self.lookup(*(x.numpy() for x in (io_group, io_channel, chip, channel))))

    def lookup(self, io_group: Array, io_channel: Array, chip: Array, channel: Array) -> Array:
        """`pixel`, of numpy arrays of whole numbers."""
        group, asic = np.asarray(io_group).astype(np.int64), np.asarray(chip).astype(np.int64)
        lane_id, pad = np.asarray(io_channel).astype(np.int64), np.asarray(channel).astype(np.int64)
        bad = (group | lane_id | asic) & ~255 != 0
        lane = np.where(bad, -1, self._lane[(group << 8 | lane_id) & 0xFFFF])
        tile = np.where(lane < 0, -1, self._tile[lane, asic & 255])
        where = self._layout[tile]
        place = self._place[where, (asic & 255) << 6 | pad & 63]
        place = np.where(self._flip[tile], self._shape[where] - 1 - place, place)
        at = self._corner[tile] + place
        tpc = self._tpc[tile]
        found = self._first[tpc] + at[..., 1] * self._nx[tpc] + at[..., 0]
        absent = (self._place[where, (asic & 255) << 6 | pad & 63, 0] < 0) | (pad & ~63 != 0)
        pixels: Array = np.where(tile < 0, -2, np.where(absent, -1, found))
        return pixels

    def address(self, pixel: Tensor) -> Address:
        """Where pixels (`Detector.pixel_id`) are read, int64 each, of the shape of `pixel`; -1 where they are not.

        Raises:
            ValueError: a pixel is beyond the detector.
        """
        number = pixel.numpy()
        if number.size and (number.min() < 0 or number.max() >= self.detector.num_pixels):
            raise ValueError(
                f"ChannelMap: pixels must be 0 ... {self.detector.num_pixels - 1}, got {number.min()} to {number.max()}"
            )
        tile = self._owner[number]
        tpc = np.where(tile < 0, 0, self._tpc[tile])
        iy, ix = np.divmod(number - self._first[tpc], self._nx[tpc])
        where = self._layout[tile]
        place = np.stack([ix, iy], -1) - self._corner[tile]
        place = np.where(self._flip[tile], self._shape[where] - 1 - place, place)
        place = np.where(tile[..., None] < 0, 0, place)
        pad = self._pad[where, place[..., 0], place[..., 1]]
        node = np.where(pad < 0, -1, self._io[tile, pad >> 6])
        here = (tile >= 0) & (node >= 0)
        columns = (node >> 8, node & 255, pad >> 6, pad & 63)
        return Address(*(torch.from_numpy(np.where(here, c, -1).astype(np.int64)) for c in columns))
