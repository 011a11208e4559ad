"""The torch-free library (csrc/sdk), called as C programs call it, against the operators."""

import ctypes
import threading

import hepops
import pytest
import torch
from conftest import shared
from hepops import flows, lattice, sparse
from hepops.core.libraries import DIRECTORY
from hepops.lartpc import Detector, Parameters, Simulator, drift, gun, recombine
from torch.testing import assert_close

from . import capi

LIBRARY = DIRECTORY / "libhepops_core.so"
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="libhepops_core was not built (HEPOPS_CORE)")


@pytest.fixture(scope="module")
def core():
    return capi.Core(LIBRARY)


def tracks(events=2, seed=1):
    return gun.shoot(Detector.module0(), events=events, seed=seed)


def assert_same_hits(found, expected, dtype):
    """Every hit the same pixel's; numbers to the rounding of a few sums in the dtype of the currents."""
    assert len(found["time"]) == len(expected) > 100
    eps = torch.finfo(dtype).eps
    for name in capi.INTEGERS:
        assert torch.equal(found[name], getattr(expected, name)), name
    for name in capi.REALS:
        assert_close(found[name], getattr(expected, name).double(), rtol=20 * eps, atol=1e-9, msg=name)
    reports = expected.reports
    for name in ("segments_outside", "rejected", "pixels"):
        assert found[name] == reports[name], name
    for name in ("energy_outside", "electrons_arriving", "electrons_lost"):
        assert found[name] == pytest.approx(reports[name], rel=1e-12, abs=1e-9), name


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize(
    "options",
    [{}, {"dtype": torch.float64, "model": "box"}, {"model": "ellipsoid", "lead": False, "reach": 1, "chunk": 50}],
    ids=["single", "double", "chunks"],
)
def test_segments_become_the_simulators_hits(core, options, seed):
    sim = Simulator(Detector.module0(), Parameters(lifetime=1500.0, efield=0.49), **options)
    config, kept = capi.configure(core, sim)
    config.chunk = sim.chunk
    with torch.no_grad():
        expected = sim(tracks(), seed)
    found = core.simulate(core.simulator(config), tracks(), seed)
    del kept
    assert_same_hits(found, expected, sim.dtype)


def test_deposits_far_apart_in_time_and_outside_are_the_simulators(core):
    segments = hepops.lartpc.Segments.cat([tracks(1), tracks(1, seed=2), tracks(1, seed=3)])
    t0 = segments.t0 + 3000.0 * (torch.arange(len(segments)) % 3)
    segments = type(segments)(**(segments.columns() | {"t0": t0, "event": torch.zeros_like(segments.event)}))
    high = 100.0 * (torch.arange(len(segments)) % 4 == 0)[:, None] * torch.tensor([0.0, 1.0, 0.0])
    moved = {"start": segments.start + high, "end": segments.end + high}  # out of the detector: reports count it
    moved["start"][1] += torch.tensor([0.0, 80.0, 0.0])  # and one that is partly outside
    segments = type(segments)(**(segments.columns() | moved))
    sim = Simulator(Detector.module0())
    config, _kept = capi.configure(core, sim)
    with torch.no_grad(), pytest.warns(UserWarning, match="outside"):
        expected = sim(segments, 5)
    assert expected.reports["energy_outside"] > 1
    assert expected.time.max() - expected.time.min() > 5000
    assert_same_hits(core.simulate(core.simulator(config), segments, 5), expected, sim.dtype)


def test_a_response_table_and_thresholds_of_pixels_are_the_simulators(core):
    response = shared("data/lartpc/response/response_first_DUNE.npy")
    sim = Simulator(Detector.module0(), Parameters(efield=0.48), response=response)
    config, _kept = capi.configure(core, sim)
    random = torch.Generator().manual_seed(3)
    thresholds = 4000 + 3000 * torch.rand(sim.detector.num_pixels, dtype=torch.float64, generator=random)
    config.thresholds = thresholds.data_ptr()
    with torch.no_grad():
        expected = sim(tracks(), threshold=thresholds)
    assert_same_hits(core.simulate(core.simulator(config), tracks()), expected, sim.dtype)


def test_constants_are_those_of_the_package(core):
    config, nominal = core.config(module0=True), Simulator(Detector.module0())
    expected, _kept = capi.configure(core, nominal)
    for kind in ("frontend", "parameters"):
        a, b = getattr(config, kind), getattr(expected, kind)
        assert {n: getattr(a, n) for n, _ in a._fields_} == {n: getattr(b, n) for n, _ in b._fields_}
    for name in ("pixel_pitch", "tick", "step", "precision", "reach", "length", "lead", "num_tpcs"):
        assert getattr(config, name) == getattr(expected, name), name
    for i in range(2):
        a, b = config.tpcs[i], expected.tpcs[i]
        assert [a.anode, a.cathode, *a.y, *a.z, a.nx, a.ny] == [b.anode, b.cathode, *b.y, *b.z, b.nx, b.ny]
    assert core.c.hepops_version().decode() == hepops.__version__


def test_threads_and_allocator_are_the_callers_and_change_no_bit(core):
    """A pool that runs ranges in threads and out of order, an allocator that fails after a while."""
    memory, left = {}, [1 << 40]

    @capi.ParallelFor
    def parallel_for(_, n, grain, body, data):
        step = max(1, min(grain, n // 3))
        ranges = [(i, min(i + step, n)) for i in range(0, n, step)][::-1]
        workers = [
            threading.Thread(target=lambda part=part: [body(data, *r) for r in part])
            for part in (ranges[0::2], ranges[1::2])
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return 0

    @capi.Allocate
    def allocate(_, size, alignment):
        left[0] -= size
        if left[0] < 0:
            return None
        block = ctypes.create_string_buffer(size + alignment)
        address = -(-ctypes.addressof(block) // alignment) * alignment
        memory[address] = block
        return address

    @capi.Deallocate
    def deallocate(_, address, size, alignment):
        del memory[address]

    threaded = capi.Core(LIBRARY, capi.Execution(None, parallel_for, allocate, deallocate))
    plain = core.simulate(core.simulator(core.config(module0=True)), tracks(1), 3)
    simulator = threaded.simulator(threaded.config(module0=True))
    found = threaded.simulate(simulator, tracks(1), 3)
    assert all(torch.equal(found[n], plain[n]) for n in capi.INTEGERS + capi.REALS)

    held = len(memory)
    left[0] = 100_000
    with pytest.raises(capi.Refused) as refused:
        threaded.simulate(simulator, tracks(1), 3)
    assert refused.value.args == (2, "out of memory")
    assert len(memory) == held  # nothing is lost
    threaded.c.hepops_simulator_destroy(simulator)
    assert len(memory) == 1  # the context


def test_one_simulator_serves_many_threads(core):
    simulator, segments = core.simulator(core.config(module0=True)), [tracks(1, seed) for seed in range(4)]
    expected = [core.simulate(simulator, s, 9) for s in segments]
    found = [None] * 8

    def work(i):
        found[i] = capi.Core(LIBRARY).simulate(simulator, segments[i % 4], 9)  # a context each

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, hits in enumerate(found):
        assert all(torch.equal(hits[n], expected[i % 4][n]) for n in capi.INTEGERS + capi.REALS)


def test_what_is_wrong_is_refused_by_name(core):
    def refusal(call):
        with pytest.raises(capi.Refused) as refused:
            call()
        return refused.value.args

    config = core.config(module0=True)
    config.parameters.lifetime = -3.0
    assert refusal(lambda: core.simulator(config)) == (1, "parameters: lifetime must lie in [1, 1e+09], got -3")
    config = core.config(module0=True)
    config.size = 8
    assert "size is 8" in refusal(lambda: core.simulator(config))[1]
    assert "needs a TPC" in refusal(lambda: core.simulator(core.config()))[1]
    huge = torch.iinfo(torch.int64).max
    for name, value, message in (
        ("threshold", 1e-300, "must be 0.001 e or more, got 1e-300"),
        ("hold", huge, "frontend: hold must lie in"),
        ("reset", huge // 2, "frontend: reset must lie in"),
        ("v_ped", float("nan"), "frontend: v_ped must be finite"),
        ("v_ref", float("inf"), "frontend: v_ref must be finite"),
        ("gain", float("inf"), "frontend: gain must be positive"),
        ("buffer_risetime", float("inf"), "frontend: buffer_risetime must not"),
        ("reset_noise", 1e300, "frontend: noise must lie in"),
    ):
        config = core.config(module0=True)
        setattr(config.frontend, name, value)
        assert message in refusal(lambda config=config: core.simulator(config))[1]
    config = core.config(module0=True)
    config.tick = float("inf")
    assert "config: tick must lie in" in refusal(lambda: core.simulator(config))[1]
    for extents in ([2**32, 2**32, 1], [huge, 1, 1]):
        field = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        with pytest.raises(capi.Refused, match="extents must have"):
            core.call("su3_staples", 3, torch.tensor(extents), ctypes.c_double(1.0), ctypes.c_double(0.0), *field)
    segments = tracks(1)
    segments.dE[4] = torch.nan
    simulator = core.simulator(core.config(module0=True))
    assert "dE of segment 4 is nan" in refusal(lambda: core.simulate(simulator, segments))[1]

    failing = capi.ParallelFor(lambda *_: 5)
    idle = capi.ParallelFor(lambda *_: 0)
    for f, message in ((failing, "parallel_for returned 5"), (idle, "parallel_for ran 0 of")):
        other = capi.Core(LIBRARY, capi.Execution(None, f, capi.Allocate(), capi.Deallocate()))
        status, text = refusal(lambda other=other: other.simulator(other.config(module0=True)))
        assert status == 3 and message in text


def test_the_laws_are_the_operators(core):
    parameters = core.config().parameters
    dedx, cos2 = torch.rand(1000, dtype=torch.float64) * 30 + 0.1, torch.rand(1000, dtype=torch.float64)
    for model, name in enumerate(("birks", "box", "ellipsoid")):
        fraction = torch.empty_like(dedx)
        core.call("recombine", ctypes.byref(parameters), model, 1000, dedx, cos2, fraction)
        expected = recombine(dedx, model=name, beta=0.207, **({"cos2": cos2} if model == 2 else {}))
        assert_close(fraction, expected, rtol=1e-14, atol=0)
    distance, out = torch.rand(1000, dtype=torch.float64) * 30, torch.empty(4, 1000, dtype=torch.float64)
    core.call("drift", ctypes.byref(parameters), 1000, distance, out[0], out[1], out[2], out[3])
    assert_close(out, torch.stack(tuple(drift(distance, 2200.0))), rtol=1e-14, atol=0)


def triples(kernel_map):
    """(row read, row written, offset) of a kernel map."""
    pairs, entries, _, schedule = (x.long() for x in kernel_map.forward)
    offset = torch.repeat_interleave(entries[:-1, 1], entries[1:, 0] - entries[:-1, 0])
    return pairs[:, 0].contiguous(), schedule[pairs[:, 1]].contiguous(), offset


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_of_given_maps_are_the_operators(core, stride):
    random = torch.Generator().manual_seed(0)
    coordinates = torch.unique(torch.randint(0, 12, (900, 3), generator=random), dim=0)
    coordinates = torch.cat([coordinates.new_zeros(len(coordinates), 1), coordinates], 1)
    x = sparse.SparseTensor(torch.randn(len(coordinates), 5, generator=random), coordinates)
    x.requires_grad_()
    layer = sparse.nn.Convolution(5, 7, 3 if stride == 1 else 2, stride, bias=True)
    y = layer(x)
    _, kernel_map = layer.route(x)
    n, m, K = len(x), len(y), kernel_map.volume
    made = ctypes.c_void_p()
    core.call("map_create", len(triples(kernel_map)[0]), *triples(kernel_map), n, m, K, ctypes.byref(made))
    weight, bias = layer.kernel.detach().contiguous(), layer.bias.detach().reshape(-1).contiguous()
    features, found = x.features.detach().contiguous(), torch.empty(m, 7)
    core.call("convolve", made, 5, 7, features, weight, bias, found)
    assert_close(found, y.features.detach(), rtol=0, atol=1e-5)  # sums of 100 numbers of order 1 in float32

    grad = torch.randn(m, 7, generator=random)
    expected = torch.autograd.grad(y.features, [x.features, layer.kernel, layer.bias], grad)
    grads = [torch.empty_like(features), torch.empty_like(weight), torch.empty_like(bias)]
    core.call("convolve_backward", made, 5, 7, grad, features, weight, *grads)
    for mine, theirs in zip(grads, expected, strict=True):
        assert_close(mine, theirs.reshape(mine.shape), rtol=1e-5, atol=1e-4)  # of up to 900 rows
    core.c.hepops_map_destroy(made)


def test_maps_that_are_none_are_refused(core):
    def create(read, written, offset, *sizes):
        columns = [torch.tensor(x, dtype=torch.int64) for x in (read, written, offset)]
        core.call("map_create", len(read), *columns, *sizes, ctypes.byref(ctypes.c_void_p()))

    for arguments, message in [
        (([0, 1], [0, 0], [0, 0], 2, 1, 1), "row 0 is written twice under offset 0"),
        (([0, 0], [0, 1], [0, 0], 1, 2, 1), "row 0 is read twice under offset 0"),
        (([2], [0], [0], 2, 1, 1), "read of triple 0 is 2, expected 0 to 1"),
        (([0], [0], [0], 1, 1, 0), "offsets must be 1 to"),
    ]:
        with pytest.raises(capi.Refused, match=message):
            create(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("tails, convention", [("linear", "nflows"), ("circular", "zuko"), (None, "nflows")])
def test_splines_are_the_operators(core, dtype, inverse, tails, convention):
    K, n = 6, 301
    random = torch.Generator().manual_seed(1)
    low, high = (-5.0, 5.0) if tails == "linear" else (0.0, 2.0)
    S = {"linear": K - 1, "circular": K, None: K + 1}[tails]
    x = low + (high - low) * torch.rand(n, dtype=dtype, generator=random)
    numbers = [torch.randn(n, k, dtype=dtype, generator=random) for k in (K, K, S)]
    inputs = [t.clone().requires_grad_() for t in (x, *numbers)]
    bound = high if tails == "linear" else (low, high)
    y, logdet = flows.rational_quadratic_spline(
        *inputs, inverse=inverse, tails=tails, bound=bound, convention=convention
    )
    s = capi.Spline(
        K, ["linear", "circular", None].index(tails), ["nflows", "zuko"].index(convention), low, high, inverse
    )
    kind = "f32" if dtype == torch.float32 else "f64"
    value, slope = torch.empty_like(x), torch.empty_like(x)
    core.call(f"spline_{kind}", ctypes.byref(s), n, x, *numbers, value, slope)
    tolerance = {"rtol": 0, "atol": 0}  # the same kernel, compiled for the same level
    assert_close(value, y.detach(), **tolerance)
    assert_close(slope, logdet.detach(), **tolerance)

    seeds = [torch.randn(n, dtype=dtype, generator=random) for _ in range(2)]
    expected = torch.autograd.grad([y, logdet], inputs, seeds)
    grads = [torch.empty_like(t) for t in (x, *numbers)]
    core.call(f"spline_backward_{kind}", ctypes.byref(s), n, *seeds, x, *numbers, *grads)
    for mine, theirs in zip(grads, expected, strict=True):
        assert_close(mine, theirs, **tolerance)


def test_su3_is_the_operators(core):
    n, random = 37, torch.Generator().manual_seed(2)
    X = torch.randn(n, 3, 3, dtype=torch.complex128, generator=random).requires_grad_()
    G = torch.randn(n, 3, 3, dtype=torch.complex128, generator=random)
    for name, operator in (("exp", torch.ops.hepops._lattice_exp), ("project", torch.ops.hepops._lattice_project)):
        U = operator(X)
        found, grad = torch.empty_like(U), torch.empty_like(U)
        core.call(f"su3_{name}", n, X.detach(), found)
        assert_close(found, U.detach(), rtol=0, atol=1e-14)
        core.call(f"su3_{name}_backward", n, G, X.detach(), grad)
        backward = getattr(torch.ops.hepops, f"_lattice_{name}_backward")
        assert_close(grad, backward(G, X.detach()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("extents, c0, c1", [((4, 3), 1.0, 0.0), ((2, 3, 4, 2), 1 + 8 / 12, -1 / 12)])
def test_staples_are_the_operators(core, extents, c0, c1):
    D = len(extents)
    M = torch.randn(D, *extents, 3, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(4))
    links = torch.ops.hepops._lattice_project(M)
    found = torch.empty_like(links)
    core.call("su3_staples", D, torch.tensor(extents), ctypes.c_double(c0), ctypes.c_double(c1), links, found)
    expected = lattice.wilson_staples(links[None], c0, c1)[0]
    assert_close(found, expected, rtol=0, atol=1e-13)  # 54 products of unitary matrices
