"""A detector of closed formulas with the simulator's interface, for tests of the fit's machinery alone.

Every law has the right form but no induction: a deposit goes to its pixel and leaks to the four next ones with
sigma_T; deposits of one pixel whose nominal arrival lies in the same 8 us make one hit, above threshold; it crosses
sigma_L / v (ln(q / threshold))^0.5 before its mean arrival. Tangents are torch's own.
"""

import torch
from hepops.lartpc import Detector, Hits, Parameters, Segments
from torch import Tensor, nn

NAMES = tuple(Parameters.SPEC)
PITCH, HALF_Z, HALF_Y, ANODE = 0.4434, 31.038, 62.076, 31.038


def tracks(events: int, seed: int = 0, spacing: float = 0.35, gap: int = 1) -> Segments:
    """Straight tracks with a rising dE/dx, one per event, cut in pieces of `spacing` cm."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    parts = []
    for event in range(events):
        begin = (uniform(3) - 0.5) * torch.tensor([50.0, 80.0, 40.0])
        direction = nn.functional.normalize(uniform(3) - 0.5, dim=0)
        along = torch.arange(0.0, 12.0, spacing, dtype=torch.float64)[:, None]
        start = begin + along * direction
        inside = (start.abs() < torch.tensor([29.0, 60.0, 29.0])).all(1)
        start = start[inside]
        dedx = 1.8 + 12 * uniform(len(start)) ** 3
        fill = torch.full((len(start),), event * gap, dtype=torch.int64)
        track = torch.full_like(fill, 1)
        columns = (start, start + spacing * direction, dedx * spacing, dedx, torch.zeros_like(dedx))
        parts.append(Segments(fill, *columns, 13 * track, track))
    return Segments.cat(parts)


class AnalyticDetector(nn.Module):
    def __init__(self, parameters: Parameters | None = None, threshold: float = 5000.0):
        super().__init__()
        self.detector = Detector.module0()
        self.threshold = threshold
        for name in NAMES:
            value = getattr(parameters or Parameters(), name)
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def forward(self, segments: Segments, seed: int | None = None, tangents: tuple[str, ...] = ()) -> Hits:
        assert seed is None
        middle = (segments.start + segments.end) / 2
        keys, number, drift, leak = self._pixels(middle, segments)
        values = torch.stack([getattr(self, name) for name in NAMES])

        def hits(p: Tensor) -> tuple[Tensor, Tensor]:
            return self._hits(dict(zip(NAMES, p, strict=True)), segments, drift, leak, number, len(keys))

        charge, time = hits(values)
        keep = (charge > self.threshold).nonzero().squeeze(1)
        event, tpc, ix, iy, _ = keys[keep].unbind(1)
        changes = {}
        if tangents:
            columns = [NAMES.index(name) for name in tangents]
            dq, dt = torch.func.jacfwd(hits)(values.detach())
            changes = {"charge_tangents": dq[keep][:, columns].T, "time_tangents": dt[keep][:, columns].T}
        pixel = torch.unique(keys[keep][:, :4], dim=0, return_inverse=True)[1] if len(keep) else keep
        first = torch.searchsorted(pixel, pixel) if len(keep) else keep  # hits lie in the order of their pixels
        y, z = -HALF_Y + (iy + 0.5) * PITCH, -HALF_Z + (ix + 0.5) * PITCH
        q, t = charge[keep], time[keep]
        rank = torch.arange(len(keep)) - first
        return Hits(event, tpc, ix, iy, t.detach(), y, z, t, q, q.detach(), pixel, rank, **changes)

    def _pixels(self, middle: Tensor, segments: Segments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Distinct (event, tpc, ix, iy, arrival / 8 us), which one each deposit goes to, its drift, and what leaked."""
        drift = ANODE - middle[:, 0].abs()
        tpc = (middle[:, 0] > 0).long()
        ix, iy = ((middle[:, 2] + HALF_Z) / PITCH).long(), ((middle[:, 1] + HALF_Y) / PITCH).long()
        steps = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        columns = [segments.event, tpc, ix, iy, (drift / 0.16 / 8).long()]
        keys = torch.stack(columns, 1)[:, None].repeat(1, 5, 1)
        keys[..., 2:4] += steps
        keys, number = torch.unique(keys.reshape(-1, 5), dim=0, return_inverse=True)
        leak = torch.tensor([0.0, 1, 1, 1, 1], dtype=torch.float64).repeat(len(drift), 1)
        return keys, number, drift, leak

    def _hits(
        self, p: dict[str, Tensor], segments: Segments, drift: Tensor, leak: Tensor, number: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        velocity = 0.1596452 * (p["efield"] / 0.5) ** 0.5005
        t = drift / velocity
        survival = p["birks_a"] / (1 + p["birks_k"] * segments.dEdx / (p["efield"] * p["density"]))
        n = survival * segments.dE / p["w_ion"] * torch.exp(-t / p["lifetime"])
        share = (2 * p["transverse_diffusion"] * t).sqrt() / PITCH  # of one neighbour
        weight = leak * share[:, None] + (1 - leak) * (1 - 4 * share[:, None])
        sigma = (2 * p["longitudinal_diffusion"] * t).sqrt() / velocity
        flat = (n[:, None] * weight).flatten()
        charge = flat.new_zeros(count).index_add(0, number, flat)
        mean = flat.new_zeros(count).index_add(0, number, flat * (segments.t0 + t).repeat_interleave(5)) / charge
        wide = flat.new_zeros(count).index_add(0, number, flat * sigma.repeat_interleave(5)) / charge
        early = torch.log((charge / self.threshold).clamp_min(1.0 + 1e-9)).sqrt()
        return charge, mean - wide * early
