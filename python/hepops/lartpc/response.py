"""What a unit charge that arrives at the plane induces on a pixel: built in, or from a table."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call

LEADS = {"drop": 0, "point": 1, "table": 2}


def weighting_potential(
    velocity: float | Tensor, pitch: float, tick: float = 0.1, bins: int = 10, size: int = 30, length: int = 150
) -> Tensor:
    r"""Weighting potential of a square pad in a grounded plane, where drifting electrons are found tick by tick.

    .. math:: \phi_w = \frac{1}{2\pi} \sum_{s,t=\pm1} s\,t\, \mathrm{atan2}(X Y, z R),
              \quad X = x + s a,\; Y = y + t a,\; R^2 = X^2 + Y^2 + z^2,\; a = \mathrm{pitch}/2

    Args:
        velocity: Drift velocity, a number or a tensor of one number [cm/us].
        pitch: Side of the pad, positive [cm].
        tick: Time step, positive [us].
        bins: Bins of the transverse grid per pitch, even and positive.
        size: Bins B from the pad's centre outward, along x and along y.
        length: Ticks M before arrival.

    Returns:
        float64 (B, B, M + 1): the potential at x = (i + 1/2) pitch / bins, y likewise, z = velocity tick m.

    Differentiable once with respect to `velocity`; deterministic.

    Raises:
        ValueError: a length, a count or `tick` is not positive, or `bins` is odd.

    References:
        | W. Shockley, J. Appl. Phys. 9 (1938) 635; S. Ramo, Proc. IRE 27 (1939) 584

    Example:
        >>> phi = weighting_potential(0.16, 0.4434)
        >>> phi.shape, phi[0, 0, 0].item(), phi[5, 0, 0].item()
        (torch.Size([30, 30, 151]), 1.0, 0.0)
    """
    v = torch.as_tensor(velocity, dtype=torch.float64)
    phi: Tensor = call(torch.ops.hepops.weighting_potential, v, pitch, tick, bins, size, length)[0]
    return phi


@register_fake("hepops::weighting_potential")
def _(velocity: Tensor, pitch: float, tick: float, bins: int, size: int, length: int) -> tuple[Tensor, Tensor]:
    return velocity.new_empty(size, size, length + 1), velocity.new_empty(size, size, length + 1)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.shape = inputs[0].shape
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (slope,) = ctx.saved_tensors
    return None if grad is None else (grad * slope).sum().reshape(ctx.shape), None, None, None, None, None


register_autograd("hepops::weighting_potential", _backward, setup_context=_setup)


@dataclass(frozen=True)
class Table:
    """A measured or simulated response: the current of a unit charge against time, the charge starting at the cathode.

    It belongs to one drift velocity. At another, its time before arrival stretches by ``velocity / v`` and its charge
    is kept. Between the table's ticks the current is constant. The charge arrives where the drift ends, which in the
    production tables is some ticks before the table does; what is induced later counts as induced at arrival.
    """

    current: Tensor  # float64 (bins_x, bins_y, ticks)  of a unit charge in bin (i, j) from the pixel's centre [1/us]
    tick: float  # [us]
    velocity: float  # for which the table was made [cm/us]
    bins: int  # bins per pixel
    drift_length: float | None = None  # from the table's start to the plane [cm]; None: the table ends at the plane

    @property
    def arrival(self) -> float:
        """When the charge reaches the plane, from the table's start [ticks]."""
        ticks = float(self.current.shape[2])
        return ticks if self.drift_length is None else min(ticks, self.drift_length / (self.velocity * self.tick))

    @staticmethod
    def read(
        source: str | Path | np.ndarray[Any, Any] | Tensor,
        pitch: float,
        tick: float | None = None,
        velocity: float | None = None,
        bin_size: float | None = None,
        drift_length: float | None = None,
    ) -> "Table":
        """Read a table: `.npy`, `.npz` (keys response, drift_length, time_tick, bin_size) or an array.

        Args:
            source: The file, or the array (bins_x, bins_y, ticks) itself [1/us].
            pitch: Of the pixels it will be used for [cm].
            tick: Time step [us]; None: of the file, or 0.1, or 0.05 where the sum over the pad's centre says so.
            velocity: Drift velocity of the table [cm/us]; None: 0.1596452, that of 0.5 kV/cm at 87.17 K.
            bin_size: Transverse bin [cm]; None: of the file, or pitch / 10.
            drift_length: From where the table's charge starts to the plane [cm]; None: of the file, or until the end.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the array has not three dimensions, holds NaN, its bins do not fit the pitch, or the charge
                that it collects on the pad is not 1 within 5 %.
        """
        name, stored = "response", {}
        if isinstance(source, (str, Path)):
            name = str(source)
            if not Path(source).is_file():
                raise FileNotFoundError(f"response: no file {name!r}")
            try:
                loaded = np.load(source, allow_pickle=False)
                if isinstance(loaded, np.ndarray):
                    source = loaded
                else:
                    with loaded:
                        stored = {key: loaded[key] for key in loaded.files}
            except (ValueError, EOFError, OSError, zipfile.BadZipFile):
                raise ValueError(f"response: {name!r} is not a whole .npy or .npz file of numbers") from None
            for key in ("time_tick", "bin_size", "drift_length"):
                if key in stored and (stored[key].size != 1 or stored[key].dtype.kind not in "fiu"):
                    raise ValueError(f"response: {key} of {name!r} must be one number, got {stored[key]!r}")
            if stored:
                if "response" not in stored:
                    raise ValueError(f"response: {name!r} has no array 'response', only {sorted(stored)}")
                source = stored["response"]
        current = torch.as_tensor(source)
        if current.is_complex() or current.dtype == torch.bool:
            raise ValueError(f"response: {name} must hold real numbers, got {current.dtype}")
        current = current.to(torch.float64).cpu()
        if current.dim() != 3 or 0 in current.shape:
            raise ValueError(f"response: {name} must be (bins_x, bins_y, ticks), got {tuple(current.shape)}")
        if not bool(torch.isfinite(current).all()):
            raise ValueError(f"response: {name} holds NaN or infinity")
        collected = float(current[0, 0].sum())
        if tick is None:
            tick = (
                float(stored["time_tick"])
                if "time_tick" in stored
                else min((0.1, 0.05), key=lambda t: abs(t * collected - 1))
            )
        if not tick > 0:
            raise ValueError(f"response: tick must be positive [us], got {tick}")
        bin_size = float(stored.get("bin_size", pitch / 10)) if bin_size is None else bin_size
        bins = round(pitch / bin_size) if bin_size > 0 else 0
        if bins < 2 or bins % 2 or abs(bins * bin_size / pitch - 1) > 1e-3:
            raise ValueError(
                f"response: bins of {bin_size} cm do not fit a pitch of {pitch} cm: an even number must fill a pixel"
            )
        if not abs(collected * tick - 1) < 0.05:
            raise ValueError(
                f"response: the charge collected over the pad's centre, sum(i dt), is {collected * tick:.4g}, "
                f"expected 1: is the tick {tick} us right?"
            )
        if min(current.shape[:2]) < bins // 2:
            raise ValueError(
                f"response: {name} has {tuple(current.shape[:2])} bins, less than the {bins // 2} from the middle of "
                f"a pad to its edge"
            )
        own = torch.zeros(current.shape[:2], dtype=torch.float64)
        own[: bins // 2, : bins // 2] = 1.0
        off = (current.sum(2) * tick - own).abs()
        if not float(off.max()) < 0.05:
            i, j = divmod(int(off.argmax()), off.shape[1])
            raise ValueError(
                f"response: the charge of bin ({i}, {j}), sum(i dt), is {float(current[i, j].sum()) * tick:.4g}, "
                f"expected {own[i, j]:.0f}"
            )
        if drift_length is None and "drift_length" in stored:
            drift_length = float(stored["drift_length"])
        if drift_length is not None and not drift_length > 0:
            raise ValueError(f"response: drift_length must be positive [cm], got {drift_length}")
        table = Table(current, tick, 0.15964524821542871 if velocity is None else velocity, bins, drift_length)
        if table.arrival < 1:
            raise ValueError(f"response: a drift of {drift_length} cm is over within one tick of {tick} us")
        return table


@dataclass(frozen=True)
class Response:
    """The response at one velocity, as the waveform operators read it (csrc/lartpc/waveforms.h)."""

    r: Tensor  # (B, B, stride)      charge induced at p = 0 .. length, p = length the last tick before arrival [1]
    rv: Tensor  # (B, B, stride)     its slope with the velocity [us/cm]
    lead: Tensor  # (B, B, stride)   [p] charge induced up to and including p
    leadv: Tensor  # (B, B, stride)
    potential: Tensor  # (B, B, P)   weighting potential at depths j dz; of use where lead_mode is 2
    bins: int
    length: int
    lead_mode: int
    dz: float  # [cm]

    @staticmethod
    def make(phi: Tensor, slope: Tensor, bins: int, mode: str, dtype: torch.dtype, **potential: Any) -> "Response":
        """From the potential at ticks 0 .. M before arrival (B, B, M + 1), and its slope with the velocity."""

        def lay(table: Tensor) -> tuple[Tensor, Tensor]:
            length = table.shape[2] - 1
            lead = table.flip(2)
            r = torch.zeros(*table.shape[:2], -(-(length + 1) // 32) * 32, dtype=torch.float64, device=table.device)
            r[..., 0] = 0.0 if mode == "drop" else lead[..., 0]
            r[..., 1 : length + 1] = lead[..., 1:] - lead[..., :-1]
            wide = torch.zeros_like(r)
            wide[..., : length + 1] = lead
            return r.to(dtype), wide.to(dtype)

        (r, lead), (rv, leadv) = lay(phi), lay(slope)
        empty: dict[str, Any] = {"potential": r.new_zeros(r.shape[0], r.shape[1], 2), "dz": 1.0}
        return Response(
            r, rv, lead, leadv, bins=bins, length=phi.shape[2] - 1, lead_mode=LEADS[mode], **(empty | potential)
        )


def builtin_response(
    velocity: Tensor,
    pitch: float,
    tick: float,
    *,
    reach: int,
    length: int,
    dtype: torch.dtype,
    bins: int = 10,
    lead: Literal["point", "drop"] = "point",
) -> Response:
    """The response of a square pad in a grounded plane (`weighting_potential`), `reach` pixels and a half around."""
    v = velocity.detach().to(torch.float64)
    phi, slope = call(torch.ops.hepops.weighting_potential, v, pitch, tick, bins, bins * (reach + 1), length)
    return Response.make(phi, slope, bins, lead, dtype)


def table_response(
    table: Table,
    velocity: Tensor,
    tick: float,
    *,
    length: int,
    dtype: torch.dtype,
    lead: Literal["table", "drop"] = "table",
) -> Response:
    """The response of a table at the given velocity, resampled to our ticks so that every bin keeps its charge."""
    v = velocity.detach().to(torch.float64)
    current = table.current.to(v.device)
    size = max(current.shape[:2])
    square = current.new_zeros(size, size, current.shape[2])
    square[: current.shape[0], : current.shape[1]] = current
    own = torch.zeros(size, size, dtype=torch.float64, device=v.device)
    own[: table.bins // 2, : table.bins // 2] = 1.0
    # phi_w at depths j dz: what the pad will see, less what it has not yet seen; before it, seen at tick `arrival - j`
    until = torch.cat([torch.zeros_like(own)[..., None], (square * table.tick).cumsum(2)], 2)
    at = table.arrival - torch.arange(int(table.arrival) + 1, dtype=torch.float64, device=v.device)
    k = at.long().clamp(max=until.shape[2] - 2)
    seen = until[..., k] + (until[..., k + 1] - until[..., k]) * (at - k)
    phi_of_depth = own[..., None] - (until[..., -1:] - seen)
    phi_of_depth[..., 0] = own
    dz = table.velocity * table.tick
    last = phi_of_depth.shape[2] - 1
    ticks = torch.arange(length + 1, dtype=torch.float64, device=v.device)
    depth = v * tick * ticks / dz
    j = depth.long().clamp(max=last - 1)
    inside = depth < last
    rise = phi_of_depth[..., j + 1] - phi_of_depth[..., j]
    phi = torch.where(inside, phi_of_depth[..., j] + rise * (depth - j), phi_of_depth[..., -1:])
    slope = torch.where(inside, rise * (tick * ticks / dz), torch.zeros(()))
    potential = {"potential": phi_of_depth.to(dtype).contiguous(), "dz": dz} if lead == "table" else {}
    return Response.make(phi, slope, table.bins, lead, dtype, **potential)
