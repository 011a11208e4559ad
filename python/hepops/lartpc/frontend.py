"""The LArPix front end: what each pixel's chip makes of its current."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.library import get_ctx, register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from .detector import Detector, FrontEnd
from .drift import velocity as drift_velocity
from .hits import Hits

Ops = torch.ops.hepops


class Windows(Protocol):
    """The currents of many pixels, each in a window of its own (hepops.lartpc.Waveforms is one)."""

    @property
    def event(self) -> Tensor: ...  # int64 (pixels)
    @property
    def tpc(self) -> Tensor: ...  # int64 (pixels)
    @property
    def ix(self) -> Tensor: ...  # int64 (pixels)
    @property
    def iy(self) -> Tensor: ...  # int64 (pixels)
    @property
    def first_tick(self) -> Tensor: ...  # int64 (pixels)      absolute
    @property
    def offsets(self) -> Tensor: ...  # int64 (pixels + 1)     into values
    @property
    def values(self) -> Tensor: ...  # float (total)           [e/us]
    @property
    def tick(self) -> float: ...  # [us]
    @property
    def tangents(self) -> Tensor | None: ...  # float (num_tangents, total)


def frontend(
    currents: Tensor | Windows,
    detector: Detector | None = None,
    *,
    threshold: float | Tensor | None = None,
    seed: int | None = None,
    sampled: bool | None = None,
    interval: tuple[int, int] | None = None,
    tangents: Tensor | None = None,
    threshold_tangents: Tensor | None = None,
    gain: float | Tensor | None = None,
    pedestal: float | Tensor | None = None,
    velocity: float | Tensor | None = None,
) -> Hits:
    r"""Hits of a self-triggering LArPix chip, as many as occur, from the current of each pixel.

    The charge :math:`Q(t)` since the last restart is compared with a threshold; the first crossing :math:`t^*` starts
    a hold of 18 ticks (hold + latency of :class:`FrontEnd`), at whose end the charge is read. One tick is lost to the
    reset, then integration restarts, and after a hit the next trigger must wait for 9 ticks more (busy). A reading
    below threshold is a silent reset: no hit, no busy time, but the charge is gone.

    There are two faces, of one kernel text; tick k covers [k, k + 1) x 0.1 us and its current is constant:

    =========== =============================================== ==========================================
    face        sampled                                         continuous
    =========== =============================================== ==========================================
    looks       at the end of each tick                         always
    trigger     tick k; time of the hit (k + 1) x 0.1 us        :math:`t^*`, where Q crosses the threshold
    reading     charge of the ticks up to k + 18                :math:`Q(t^* + 18)`
    restart     with tick k + 20, that is at k + 20             at :math:`t^* + 19`
    next        after a hit from tick k + 28, whose end is      not before :math:`t^* + 28` after a hit, else
    trigger     k + 29; after a silent reset from k + 20        at any time after the restart
    noise       reset, uncorrelated, discriminator              none
    ADC         rounded                                         not rounded
    =========== =============================================== ==========================================

    With a buffer filter (`buffer_risetime`) what arrives in a tick is f_k = keep f_{k-1} + (1 - keep) I_k, keep =
    exp(-tick / risetime), and a restart forgets what waits: larnd-sim's filter, without its end after ten rise times.

    They agree in every moment where :math:`t^*` is the end of tick k. In between the sampled face triggers up to one
    tick later, half a tick in the mean, and its reading holds so much more charge: on 30 muon waveforms at 5000 e the
    time is 0.50 ticks later (rms 0.35 about it) and the charge 120 e higher (rms 380 e), and 48 hits of the continuous
    face (966 772 e) are 46 of the sampled one (962 275 e). The continuous face is what the sampled one becomes where
    the phase of the clock is averaged, up to this half tick; it is the one to differentiate.

    .. math::
        \mathrm{d}t^* = -\frac{\mathrm{d}Q - \mathrm{d}(\mathrm{threshold})}{\partial Q / \partial t}, \qquad
        \mathrm{d}q = \mathrm{d}Q(t^* + 18) + \dot Q(t^* + 18)\, \mathrm{d}t^* + \partial_s Q\, \mathrm{d}s

    (without a filter :math:`\dot Q = I`, :math:`\partial_s Q = -I(s)`). The restart :math:`s` moves with the trigger
    before it, silent ones included; a trigger that waited for the busy time moves with the hit before it.

    Args:
        currents: Current averaged over each tick, float32 or float64 [e/us]: (pixels, ticks), the first tick being
            tick 0 of event 0, or the windows of a Waveforms.
        detector: Front-end constants and geometry; module0 where it is not given.
        threshold: One number or one per pixel, positive [e]; that of the detector where it is not given.
        seed: Of the noise; without one there is none. A random number is named by the seed, the pixel (event, tpc, ix,
            iy), the absolute tick and its purpose, so it does not depend on threads, batches or windows.
        sampled: Which face; where it is not given, the sampled one with a seed, else the continuous one.
        interval: Absolute ticks [first, last) at which a sampled chip may trigger, its integration starting at the
            first; noise triggers outside the window of the current, too. By default each pixel's window. A look that
            is due at the end of a hit's busy time happens even if that is later, in both faces.
        tangents: Directions of the current, (num_tangents, pixels, ticks) or (num_tangents, total) [e/us per unit of
            each]: the hits carry the derivatives along them. By default those of the Waveforms.
        threshold_tangents: The threshold's share of the same directions, (num_tangents, 1 or pixels) [e per unit].
        gain: Of the ADC, a number or a tensor of one number [mV/e]; the detector's by default.
        pedestal: V_ped, a number or a tensor of one number [mV]; the detector's by default.
        velocity: Drift velocity that turns times into x, a number or a tensor of one number [cm/us]; that of the
            detector's nominal field and temperature where it is not given.

    Returns:
        Hits, sorted by pixel and time. Times are float64, charges of the dtype of the currents, accumulated in double.
        Without a Waveforms ix is the row, and the position is NaN. adc = min(round(max(q gain + V_ped - V_cm, 0) 256 /
        (V_ref - V_cm)), 255) is int64 in the sampled face and an unrounded float in the continuous one.
        `reports["rejected"]` is the number of silent resets of each pixel, `reports["integration"]` the begin and end
        of each hit's integration in absolute ticks, float64 (2, num_hits).

    Differentiable once in the continuous face: time and charge with respect to the currents and the threshold (reverse
    mode, and forward mode by `tangents`), x also to the velocity, adc also to gain and pedestal (zero where it
    saturates). The number of hits is not differentiable: a derivative holds while it stays. The sampled face has no
    derivative. Both are bit-identical from run to run and for any number of threads. The number of hits is read back
    from a GPU, with the verdict on the input.

    Raises:
        TypeError: the currents are neither float32 nor float64.
        ValueError: a current is not finite, a threshold is not positive, a shape does not fit, or the continuous face
            is asked for noise or an interval, which it has not.

    References:
        | D. A. Dwyer et al., JINST 13 (2018) P10007 (LArPix)
        | DUNE/larnd-sim, larndsim/fee.py (the sampled face)

    Example:
        >>> current = torch.zeros(1, 100, dtype=torch.float64)
        >>> current[0, 10:40] = 4000.0
        >>> hits = frontend(current, threshold=5000.0)
        >>> hits.time, hits.charge
        (tensor([2.2500], dtype=torch.float64), tensor([12000.], dtype=torch.float64))
        >>> frontend(current, threshold=5000.0, sampled=True).time
        tensor([2.3000], dtype=torch.float64)
    """
    detector = Detector.module0() if detector is None else detector
    chip = detector.frontend
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise ValueError(f"frontend: seed must be an integer from 0 to 2^63 - 1, got {seed!r}")
    sampled = seed is not None if sampled is None else sampled
    windows = _Rows(currents, detector)
    values = windows.values
    bar = torch.as_tensor(chip.threshold if threshold is None else threshold, dtype=values.dtype, device=values.device)
    clock = (windows.tick, chip.integration, chip.reset, chip.busy, chip.buffer_risetime)
    if tangents is None:
        tangents = windows.tangents

    time_tangents = charge_tangents = None
    if sampled:
        crossed, charge, row, rank = _sampled(windows, bar, clock, chip, seed, interval)
    else:
        _refuse_noise(seed, interval)
        crossed, charge, row, rank, first = call(Ops.frontend, values, windows.offsets, bar, *clock)
        if tangents is not None:
            inputs = (x.detach() for x in (values, windows.offsets, bar, rank, crossed, first))
            flat = tangents.detach().reshape(tangents.shape[0], -1)
            time_tangents, charge_tangents = call(Ops.frontend_jvp, flat, threshold_tangents, *inputs, *clock)

    hit = (rank >= 0).nonzero()[:, 0]
    if time_tangents is not None and charge_tangents is not None:
        time_tangents, charge_tangents = windows.tick * time_tangents[:, hit], charge_tangents[:, hit]
    rejected = torch.zeros_like(windows.first_tick).index_add_(0, row, (rank < 0).long())
    window = _integration(windows.first_tick[row], row, crossed.detach(), chip, interval)[:, hit]
    row, rank, charge = row[hit], rank[hit], charge[hit]
    time = (windows.first_tick[row] + crossed[hit]) * windows.tick
    event, tpc, ix, iy = (name[row] for name in windows.names)
    x, y, z = windows.position(tpc, ix, iy, time if windows.t0 is None else time - windows.t0[row], velocity)
    return Hits(
        event=event,
        tpc=tpc,
        ix=ix,
        iy=iy,
        x=x,
        y=y,
        z=z,
        time=time,
        charge=charge,
        adc=digitise(charge, chip, gain=gain, pedestal=pedestal, rounded=sampled),
        row=row,
        rank=rank,
        tangent_names=getattr(currents, "tangent_names", ()) if tangents is windows.tangents else (),
        time_tangents=time_tangents,
        charge_tangents=charge_tangents,
        reports={"rejected": rejected, "integration": window},
    )


def _integration(
    first_tick: Tensor, row: Tensor, crossed: Tensor, chip: FrontEnd, interval: tuple[int, int] | None
) -> Tensor:
    """Begin and end of each trigger's integration, absolute ticks, float64 (2, num_triggers)."""
    ticks = crossed.to(torch.float64) + first_tick
    begin = first_tick.to(torch.float64) if interval is None else torch.full_like(ticks, interval[0])
    # The trigger before; as cat and narrow, since a compiler does not know that there is any.
    row_before = torch.cat([row.new_full((1,), -1), row]).narrow(0, 0, row.shape[0])
    ticks_before = torch.cat([ticks.new_zeros(1), ticks]).narrow(0, 0, row.shape[0])
    begin = torch.where(row == row_before, ticks_before + (chip.integration + chip.reset), begin)
    return torch.stack([begin, ticks + chip.integration])


def digitise(
    charge: Tensor,
    chip: FrontEnd,
    *,
    gain: float | Tensor | None = None,
    pedestal: float | Tensor | None = None,
    rounded: bool = True,
) -> Tensor:
    """ADC counts of a charge [e]: min(round(max(q gain + V_ped - V_cm, 0) 256 / (V_ref - V_cm)), 255).

    int64; not rounded, they are of the charge's dtype and differentiable with respect to charge, gain and pedestal,
    with derivative zero where the ADC saturates.
    """
    gain, pedestal = chip.gain if gain is None else gain, chip.v_ped if pedestal is None else pedestal
    voltage = charge * gain + pedestal - chip.v_cm
    counts = voltage.clamp(min=0) * (chip.adc_counts / (chip.v_ref - chip.v_cm))
    if rounded:
        return counts.round().clamp(max=chip.adc_counts - 1).long()
    return counts.clamp(max=chip.adc_counts - 1)


class _Rows:
    """Either form of the currents, as ragged rows with names."""

    def __init__(self, currents: Tensor | Windows, detector: Detector):
        self.detector = detector
        self.placed = not isinstance(currents, Tensor)
        self.t0: Tensor | None = getattr(currents, "t0", None)
        if isinstance(currents, Tensor):
            if currents.dim() != 2:
                raise ValueError(f"frontend: currents must be (pixels, ticks), got shape {tuple(currents.shape)}")
            pixels, ticks = currents.shape
            rows = torch.arange(pixels + 1, device=currents.device)
            zero = torch.zeros_like(rows[:-1])
            self.values, self.offsets, self.first_tick = currents.reshape(-1), rows * ticks, zero
            self.names = (zero, zero, rows[:-1], zero)
            self.tick, self.tangents = detector.tick, None
        else:
            self.values, self.offsets, self.first_tick = currents.values, currents.offsets, currents.first_tick
            self.names = (currents.event, currents.tpc, currents.ix, currents.iy)
            self.tick, self.tangents = currents.tick, currents.tangents

    def position(
        self, tpc: Tensor, ix: Tensor, iy: Tensor, time: Tensor, velocity: float | Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x from the time, y and z of the pixel's centre [cm]."""
        if not self.placed:
            return time * torch.nan, time.detach() * torch.nan, time.detach() * torch.nan
        if velocity is None:
            velocity = drift_velocity(self.detector.nominal.efield, self.detector.nominal.temperature)
        _, y, z = self.detector.pixel_centre(tpc, ix, iy).unbind(-1)
        return self.detector.drift_position(velocity * time, tpc), y, z


def _sampled(
    windows: _Rows,
    threshold: Tensor,
    clock: tuple[float, int, int, int, float],
    chip: FrontEnd,
    seed: int | None,
    interval: tuple[int, int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Crossing [ticks from the row's start], charge, row and rank of each trigger, clocked."""
    noise = (chip.reset_noise, chip.uncorrelated_noise, chip.discriminator_noise) if seed is not None else (0.0,) * 3
    tick, charge, row, rank, _ = call(
        Ops._frontend_sampled,
        windows.values.detach(),
        windows.offsets,
        windows.first_tick,
        torch.stack(windows.names, 1),
        threshold.detach(),
        0 if seed is None else seed,
        *clock,
        *noise,
        *(interval or (None, None)),
    )
    return (tick + 1 - windows.first_tick[row]).double(), charge, row, rank


def _refuse_noise(seed: int | None, interval: tuple[int, int] | None) -> None:
    if seed is not None:
        raise ValueError(f"frontend: the continuous face is free of noise, got seed {seed}")
    if interval is not None:
        raise ValueError(f"frontend: the continuous face looks always, got interval {interval}")


def _table(values: Tensor, offsets: Tensor, time: torch.dtype) -> tuple[Tensor, ...]:
    triggers = get_ctx().new_dynamic_size()
    row, rank = (offsets.new_empty(triggers) for _ in range(2))
    return (
        values.new_empty(triggers, dtype=time),
        values.new_empty(triggers),
        row,
        rank,
        offsets.new_empty(offsets.shape),
    )


@register_fake("hepops::frontend")
def _(values: Tensor, offsets: Tensor, threshold: Tensor, *clock: Any) -> tuple[Tensor, ...]:
    return _table(values, offsets, torch.float64)


@register_fake("hepops::_frontend_sampled")
def _(values: Tensor, offsets: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _table(values, offsets, torch.int64)


@register_fake("hepops::frontend_backward")
def _(
    grad_time: Tensor, grad_charge: Tensor, values: Tensor, offsets: Tensor, threshold: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape), threshold.new_empty(threshold.shape)


@register_fake("hepops::frontend_jvp")
def _(
    tangents: Tensor,
    threshold_tangents: Tensor | None,
    values: Tensor,
    offsets: Tensor,
    threshold: Tensor,
    rank: Tensor,
    time: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor]:
    shape = (tangents.shape[0], time.shape[0])
    return values.new_empty(shape, dtype=torch.float64), values.new_empty(shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    values, offsets, threshold, *ctx.clock = inputs
    time, _, _, rank, first = output
    ctx.save_for_backward(values, offsets, threshold, rank, time, first)


def _backward(ctx: Any, time: Tensor, charge: Tensor, *integers: Any) -> tuple[Tensor | None, ...]:
    grad_values, grad_threshold = Ops.frontend_backward(time, charge, *ctx.saved_tensors, *ctx.clock)
    threshold = ctx.saved_tensors[2]
    return grad_values, None, grad_threshold.reshape(threshold.shape), *(None for _ in ctx.clock)


register_autograd("hepops::frontend", _backward, setup_context=_setup)
once_differentiable("hepops::frontend_backward")
