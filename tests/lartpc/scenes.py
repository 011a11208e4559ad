"""Tracks, golden events and reference formulas that the tests of the simulator share."""

import dataclasses
import functools
import math
from contextlib import contextmanager

import numpy as np
import torch
from conftest import shared
from hepops.lartpc import TPC, Detector, Segments, read_segments, simulator

MODULE0 = Detector.module0()
OFFSET = (0.0, 21.8236, 0.0)  # of files made in the frame of DUNE's module0


def segments(start, end=None, dE=1.5, dEdx=2.1, t0=0.0, event=0):
    """Segments from lists of points [cm]; without `end` they are points."""
    start = torch.as_tensor(start, dtype=torch.float64).reshape(-1, 3)
    end = start.clone() if end is None else torch.as_tensor(end, dtype=torch.float64).reshape(-1, 3)
    n = len(start)

    def column(x, dtype=torch.float64):
        return torch.as_tensor(x, dtype=dtype).expand(n).clone()

    zero = torch.zeros(n, dtype=torch.int64)
    return Segments(column(event, torch.int64), start, end, column(dE), column(dEdx), column(t0), zero, zero)


def muons(name="muons_1.h5", events=None):
    read = read_segments(shared(f"data/lartpc/edepsim/{name}"))
    return read if events is None else read.select(events)


def differentiable(s):
    """The same segments with leaves for positions, dE, dE/dx and t0."""
    names = ("start", "end", "dE", "dEdx", "t0")
    return dataclasses.replace(s, **{name: getattr(s, name).clone().requires_grad_() for name in names})


@contextmanager
def changed(sim, **values):
    """The simulator with other parameters for a while, without gradients."""
    before = {name: getattr(sim, name).item() for name in values}
    with torch.no_grad():
        for name, value in values.items():
            getattr(sim, name).fill_(value)
        try:
            yield sim
        finally:
            for name, value in before.items():
                getattr(sim, name).fill_(value)


@contextmanager
def layouts(monkeypatch):
    """The nodes and their layouts, as the simulator plans them meanwhile: [(nodes, pixels, layout, settings)]."""
    seen, original = [], simulator.plan

    def record(nodes, group, pixels, velocity, response, **settings):
        layout = original(nodes, group, pixels, velocity, response, **settings)
        seen.append((nodes.detach(), pixels, layout, response, settings))
        return layout

    with monkeypatch.context() as patch:
        patch.setattr(simulator, "plan", record)
        yield seen


def assert_same(ours, theirs):
    """Two Waveforms or Hits, bit by bit."""
    for field in dataclasses.fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if torch.is_tensor(a):
            assert a.shape == b.shape, field.name
            assert torch.equal(a.nan_to_num(nan=-1e30), b.nan_to_num(nan=-1e30)), field.name


# ---- the golden event of larnd-sim-jax, whose z is our x


def golden(name="jax_lut_f64"):
    """The stored arrays and a reader of the columns of its segments."""
    data = dict(np.load(shared(f"golden/lartpc/{name}.npz")))
    column = {str(field): k for k, field in enumerate(data["fields"])}
    return data, lambda field: torch.from_numpy(data["input_tracks"][:, column[field]]).double()


def golden_segments(track, extended):
    """Theirs are points in the middle of their steps, or lines."""

    def ends(suffix):
        return torch.stack([track(axis + suffix) for axis in ("z", "y", "x")], 1)

    start, end = (ends("_start"), ends("_end")) if extended else (ends(""), ends(""))
    return segments(start, end, track("dE"), track("dEdx"), track("t0"))


def golden_detector(data):
    planes = [
        TPC(anode=a, cathode=c, y=tuple(map(float, y)), z=tuple(map(float, z)), ny=280, nx=140)
        for z, y, (a, c) in data["tpc_borders"].astype(float)
    ]
    return MODULE0.replace(tpcs=tuple(planes))


# ---- the same physics in other words


def potential(x, y, z, a):
    """Weighting potential of a square pad |x|, |y| < a: four arctangents; on the plane 1 over the pad."""
    total = 0.0
    for s in (-1, 1):
        for t in (-1, 1):
            X, Y = x + s * a, y + t * a
            total = total + s * t * torch.atan(X * Y / (z * (X * X + Y * Y + z * z).sqrt()))
    return total / (2 * math.pi)


@functools.cache
def gauss_legendre(n, low, high):
    x, w = np.polynomial.legendre.leggauss(n)
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    return low + (x + 1) * (high - low) / 2, w * (high - low) / 2


def bin_shares(centre, sigma, width, bin, first, n, points=24):
    """Share of each bin, (N, n): a Gaussian at every point of the line, averaged over the line."""
    s, w = gauss_legendre(points, -0.5, 0.5)
    edges = (first + torch.arange(n + 1, dtype=torch.float64)) * bin
    at = (edges[None, :, None] - centre[:, None, None] - s * width[:, None, None]) / sigma[:, None, None]
    below = (0.5 * torch.special.erfc(-at / math.sqrt(2)) * w).sum(2)
    return below[:, 1:] - below[:, :-1]


def tick_shares(time, sigma, width, first, n):
    """Share of each tick, (N, n), times in ticks: triangles of unit width, Gaussian, line, all by quadrature."""
    s, ws = gauss_legendre(16, -0.5, 0.5)
    total = 0.0
    for low, high in ((-1.0, -0.5), (-0.5, 0.0), (0.0, 0.5), (0.5, 1.0)):
        u, wu = gauss_legendre(32, low, high)
        tick = first + torch.arange(n, dtype=torch.float64)
        at = tick[None, :, None, None] - time[:, None, None, None] - u[:, None]
        z = (at - s * width[:, None, None, None]) / sigma[:, None, None, None]
        density = (-0.5 * z * z).exp() / (math.sqrt(2 * math.pi) * sigma[:, None, None, None])
        total = total + ((density * ws).sum(3) * wu * (1 - u.abs())).sum(2)
    return total
