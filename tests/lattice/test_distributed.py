"""2 and 4 ranks, each with a box of the lattice, against one rank with all of it."""

import math

import pytest
import torch
import torch.multiprocessing as mp
from hepops import flows
from hepops.lattice import HMC, SUN, U1, Phi4
from hepops.lattice.distributed import Decomposed, DecomposedCoupling, Grid, halo
from hepops.lattice.distributed.halo import interior
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

ROUNDING = {"rtol": 1e-11, "atol": 1e-11}
GRIDS = {2: [(1, 2), (2, 1)], 4: [(2, 2), (4, 1)]}


def _theories():
    return {
        "phi4": Phi4((8, 4), m2=-4, lam=8),
        "u1": U1((4, 8), beta=2.0),
        "su2": SUN(2, (4, 4), beta=2.2),
        "su3": SUN(3, (8, 4), beta=5.0),
        "su3_4d": SUN(3, (4, 4, 2, 2), beta=5.7),
        "su2_rectangles": SUN(2, (8, 4), beta=2.2, improvement="iwasaki"),
    }


def _grid(theory, ranks):
    return (*ranks, *[1] * (theory.dims - 2))


def _trajectory(theory, field, steps=4, eps=0.05):
    """Leapfrog, with the pieces that every theory has: the field, and what decides about it."""
    p = theory.momenta(field, seed=5, step=2, first=3)
    before = theory.action(field) + theory.kinetic(p)
    p = p - eps / 2 * theory.force(field)
    for i in range(steps):
        field = theory.move(field, p, eps)
        p = p - (eps if i < steps - 1 else eps / 2) * theory.force(field)
    return field, theory.action(field) + theory.kinetic(p) - before


RUNS = {"phi4": "force_gradient", "u1": "leapfrog", "su3": "omelyan", "su2_rectangles": "force_gradient"}


def _run(theory, integrator):
    """HMC as it is, from the vacuum, with steps so long that some trajectories are rejected."""
    step_size = 0.25
    run = HMC(theory, step_size, 2, integrator=integrator, project_every=2).run(
        3, chains=3, seed=9, first=1, start="cold", observables={"S": theory.action}
    )
    accepted = run.history["accepted"].double()
    return {"field": run.chains.field, "dH": run.dH, "accepted": accepted, "S": run.observables["S"]}


def _layers(shape):
    torch.manual_seed(3)
    layers = []
    for parity in (0, 1):
        layer = flows.MaskedCoupling(
            flows.checkerboard(shape, parity), flows.Affine(), flows.ConvNet(1, 2, hidden=(6,))
        )
        for p in layer.parameters():
            torch.nn.init.normal_(p, std=0.2)
        layers.append(layer.double())
    return layers


def _theory_results(theory, field):
    field = field.clone().requires_grad_()
    action = theory.action(field)
    weights = torch.arange(1, len(field) + 1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((action * weights).sum(), field)
    with torch.no_grad():
        moved, dh = _trajectory(theory, field)
        return {"action": action.detach(), "slope": slope, "force": theory.force(field), "moved": moved, "dh": dh}


def _flow_results(layers, x):
    x = x.clone().requires_grad_()
    y, total = x, 0
    for layer in layers:
        y, logdet = layer(y)
        total = total + logdet
    return x, y, total


def _on_rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = {}
    for ranks in GRIDS[world]:
        for name, theory in _theories().items():
            grid = Grid(theory.shape, _grid(theory, ranks))
            mine = Decomposed(theory, grid)
            field = mine.random(2, seed=7)
            found = _theory_results(mine, field)
            for key in ("slope", "force", "moved"):
                found[key] = grid.whole(found[key], theory.behind)
            results[name, ranks] = found
            if name in RUNS and ranks == GRIDS[world][0]:
                run = _run(mine, RUNS[name])
                results["hmc", name] = run | {"field": grid.whole(run["field"], theory.behind)}
        grid = Grid((8, 8), ranks)
        whole = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        layers = _layers((8, 8))
        x, y, total = _flow_results([DecomposedCoupling(layer, grid) for layer in layers], grid.local(whole))
        back = DecomposedCoupling(layers[1], grid).inverse(y.detach())[0]
        loss = grid.sum(y.pow(3).sum()) + total.square().sum()
        loss.backward()
        parameters = [p for layer in layers for p in layer.parameters()]
        grid.sum_gradients(parameters)
        results["flow", ranks] = {
            "y": grid.whole(y),
            "total": total.detach(),
            "loss": loss.detach(),
            "slope": grid.whole(x.grad),
            "back": grid.whole(back),
            "weights": torch.cat([p.grad.flatten() for p in parameters]),
        }
        deep = grid.local(whole).requires_grad_()  # corners, and a margin as wide as a box
        w = [min(2, n) for n in grid.local_shape]
        margin = halo(deep, grid, w)
        grid.sum(margin.pow(2).sum()).backward()
        results["halo", ranks] = {
            "sites": torch.equal(margin, _wrapped(whole, grid, w)),
            "slope": grid.whole(deep.grad),
            "widths": w,
        }
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _wrapped(whole, grid, widths):
    """The box of this rank and its margin, read from the whole lattice."""
    for axis, (first, n, w) in enumerate(zip(grid.origin, grid.local_shape, widths, strict=True), 1):
        whole = whole.index_select(axis, torch.arange(first - w, first + n + w) % whole.shape[axis])
    return whole


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("ranks"), torch.get_num_threads()
    torch.set_num_threads(1)  # a fork with a pool of threads hangs
    mp.start_processes(_on_rank, (request.param, str(folder)), nprocs=request.param, start_method="fork")
    torch.set_num_threads(before)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def test_theories_and_trajectories(ranks):
    for name, theory in _theories().items():
        wanted = _theory_results(theory, theory.random(2, seed=7))
        for grid in GRIDS[len(ranks)]:
            for found in ranks:
                assert set(found[name, grid]) == set(wanted)
                for key, value in wanted.items():
                    assert_close(
                        found[name, grid][key], value, **ROUNDING, msg=lambda m, who=f"{name} {key}": f"{who}: {m}"
                    )


def test_every_rank_decides_alike(ranks):
    for name in _theories():
        for grid in GRIDS[len(ranks)]:
            for found in ranks[1:]:
                assert torch.equal(found[name, grid]["dh"], ranks[0][name, grid]["dh"])


def test_hybrid_monte_carlo(ranks):
    """The sampler itself: fields, energies and decisions of three trajectories."""
    share = []
    for name, integrator in RUNS.items():
        wanted = _run(_theories()[name], integrator)
        share.append(wanted["accepted"].mean())
        for found in ranks:
            assert_close(found["hmc", name], wanted, **ROUNDING, msg=lambda m, who=name: f"{who}: {m}")
    assert 0 < sum(share) / len(share) < 1  # both decisions were met


def test_couplings_and_their_gradients(ranks):
    layers = _layers((8, 8))
    whole = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y, total = _flow_results(layers, whole)
    loss = y.pow(3).sum() + total.square().sum()
    loss.backward()
    wanted = {
        "y": y.detach(),
        "total": total.detach(),
        "loss": loss.detach(),
        "slope": x.grad,
        "back": layers[1].inverse(y.detach())[0],
        "weights": torch.cat([p.grad.flatten() for layer in layers for p in layer.parameters()]),
    }
    for grid in GRIDS[len(ranks)]:
        for found in ranks:
            for key, value in wanted.items():
                assert_close(found["flow", grid][key], value, **ROUNDING, msg=lambda m, k=key: f"{k}: {m}")


def test_margins_with_their_corners(ranks):
    whole = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ranks_of in GRIDS[len(ranks)]:
        for found in ranks:
            result = found["halo", ranks_of]
            assert result["sites"]
            # each site is in its own box, and in so many margins
            count = torch.ones(())
            for n, parts, w in zip((8, 8), ranks_of, result["widths"], strict=True):
                box = n // parts
                x = torch.arange(n) % box
                count = count[..., None] * (1 + (x < w).long() + (x >= box - w).long())
            assert_close(result["slope"], 2 * whole * count)


def test_one_rank_is_a_grid_too():
    grid = Grid((3, 4), (1, 1))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert_close(interior(halo(x, grid, (1, 2)), grid, (1, 2)), x)
    assert gradcheck(lambda x: halo(x, grid, (1, 2)), x, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(lambda x: halo(x, grid, (1, 2)).sin(), x, atol=1e-8, rtol=1e-6)


def test_numbers_of_a_box_are_those_of_the_lattice():
    theory = SUN(3, (4, 2), beta=5.0)
    mine = Decomposed(theory, Grid((4, 2), (1, 1)))
    U = theory.random(3, seed=1)
    assert torch.equal(mine.momenta(U, seed=2, step=1, first=4), theory.momenta(U, seed=2, step=1, first=4))
    assert math.prod(mine.event_shape) == math.prod(theory.event_shape)


@pytest.mark.parametrize(
    "ranks, message", [((3, 1), "do not divide"), ((2, 1), "must be 1 in all"), ((1,), "must hold 2 numbers")]
)
def test_refuses_grids(ranks, message):
    with pytest.raises(ValueError, match=message):
        Grid((8, 4), ranks)


def test_refuses_other_fields():
    grid = Grid((8, 4), (1, 1))
    with pytest.raises(ValueError, match=r"box of \(8, 4\), got shape \(2, 4, 8\)"):
        halo(torch.zeros(2, 4, 8), grid, 1)
    with pytest.raises(ValueError, match=r"width must lie in \[0, L\].* got 5"):
        halo(torch.zeros(2, 8, 4), grid, 5)
    with pytest.raises(ValueError, match=r"grid is of \(8, 4\), the theory of \(4, 4\)"):
        Decomposed(Phi4((4, 4), m2=1, lam=1), grid)
    with pytest.raises(ValueError, match="smaller than the reach 5"):
        Decomposed(Phi4((8, 4), m2=1, lam=1), grid, reach=5)
    layer = flows.MaskedCoupling(flows.checkerboard((8, 4)), flows.Affine(), flows.ConvNet(1, 2, hidden=(2,) * 5))
    with pytest.raises(ValueError, match="smaller than radius 6"):
        DecomposedCoupling(layer, grid)
