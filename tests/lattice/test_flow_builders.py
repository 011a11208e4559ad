"""Every flow of a lattice: any batch, finite gradients at the vacuum, weights that go to a file and back."""

import pytest
import torch
from hepops.lattice import SUN, U1, Phi4
from hepops.lattice.flows import (
    Curriculum,
    acceptance,
    affine_flow,
    continuous,
    evaluate,
    residual,
    spectral,
    spline_flow,
    train,
    u1_coupling,
)
from torch.testing import assert_close

PHI, ANGLES, TWO, THREE = Phi4((4, 4), -4.0, 8.0), U1((4, 4), 1.0), SUN(2, (4, 4), 2.0), SUN(3, (4, 4), 3.0)
BUILDERS = {
    "affine": (PHI, lambda **o: affine_flow(PHI, 4, (4,), **o)),
    "spline": (PHI, lambda **o: spline_flow(PHI, 2, (4,), **o)),
    "continuous scalar": (PHI, lambda **o: continuous(PHI, steps=2, **o)),
    "U(1)": (ANGLES, lambda **o: u1_coupling(ANGLES, 2, hidden=(4,), **o)),
    "U(1), ncp, staples": (ANGLES, lambda **o: u1_coupling(ANGLES, 2, "ncp", loop="staples", hidden=(4,), **o)),
    "SU(2)": (TWO, lambda **o: spectral(TWO, 2, hidden=(4,), **o)),
    "SU(3)": (THREE, lambda **o: spectral(THREE, 2, hidden=(4,), **o)),
    "SU(3), staples": (THREE, lambda **o: spectral(THREE, 2, loop="staples", hidden=(4,), **o)),
    "residual": (THREE, lambda **o: residual(THREE, 4, conditioner="loops", **o)),
    "continuous gauge": (TWO, lambda **o: continuous(TWO, steps=2, **o)),
}


def built(name, **options):
    """Off the identity, the same in every run."""
    theory, build = BUILDERS[name]
    torch.manual_seed(1)
    flow = build(**options)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn(p.shape).to(p.dtype))
    return theory, flow


@pytest.mark.parametrize("name", BUILDERS)
def test_any_batch(name, device):
    """None, one, two dimensions, and no event at all: the numbers of each event are its own."""
    theory, flow = built(name, dtype=torch.float64)
    flow = flow.to(device)
    x = theory.random(6, seed=1, device=device)
    with torch.no_grad():
        log_q = flow.log_prob(x)
        assert log_q.std() > 1e-3
        assert_close(flow.log_prob(x.view(2, 3, *x.shape[1:])), log_q.view(2, 3), rtol=0, atol=1e-11)
        assert_close(flow.log_prob(x[0]), log_q[0], rtol=0, atol=1e-11)
        wide, _ = flow.transform.inverse(x.view(3, 2, *x.shape[1:]))
        assert_close(wide.flatten(0, 1), flow.transform.inverse(x)[0], rtol=0, atol=1e-11)
    none, log_q = flow.rsample_and_log_prob(0, seed=1)
    log_q.sum().backward()
    assert none.shape == (0, *theory.event_shape) and log_q.shape == (0,)


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_at_the_vacuum(name, device):
    """All loops are 1 there, all eigenvalues and singular values meet."""
    theory, flow = built(name, dtype=torch.float64)
    flow = flow.to(device)
    x = theory.cold(2, device=device).requires_grad_()
    flow.log_prob(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in flow.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_are_the_state(name):
    theory, flow = built(name, dtype=torch.float32)
    _, other = BUILDERS[name][0], BUILDERS[name][1](dtype=torch.float32)
    other.load_state_dict({k: v.clone() for k, v in flow.state_dict().items()})
    x = theory.random(3, seed=2, dtype=torch.float32)
    assert torch.equal(flow.log_prob(x), other.log_prob(x))


@pytest.mark.parametrize("loss", ["reverse_kl", "path", "reinforce", "forward_kl"])
@pytest.mark.parametrize("name", BUILDERS)
def test_every_loss_trains_every_flow(name, loss):
    """In float32: finite losses, and weights that move."""
    theory, flow = built(name, dtype=torch.float32)
    before = torch.cat([p.detach().flatten().clone() for p in flow.parameters()])
    ensemble = theory.random(16, seed=3) if loss == "forward_kl" else None
    training = train(flow, theory, steps=2, batch=8, loss=loss, ensemble=ensemble, clip=10.0)
    assert training.skipped == 0 and all(value == value for value in training.history["loss"])
    assert not torch.equal(before, torch.cat([p.detach().flatten() for p in flow.parameters()]))


WHOLE = "layers must be a whole number of at least 1"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: affine_flow(ANGLES), TypeError, "affine_flow: theory must be of a real scalar field, got U1"),
        (lambda: spline_flow(TWO), TypeError, "spline_flow: theory must be of a real scalar field, got SUN"),
        (lambda: u1_coupling(PHI), TypeError, "u1_coupling: theory must be U1, got Phi4"),
        (lambda: spectral(ANGLES), TypeError, "spectral: theory must be SUN, got U1"),
        (lambda: residual(PHI), TypeError, "residual: theory must be SUN, got Phi4"),
        (lambda: affine_flow(PHI, 0), ValueError, f"{WHOLE}, got 0"),
        (lambda: spline_flow(PHI, -1), ValueError, f"{WHOLE}, got -1"),
        (lambda: spline_flow(PHI, 1, affine=-1), ValueError, "affine must not be negative, got -1"),
        (lambda: residual(TWO, 1.5), ValueError, f"{WHOLE}, got 1.5"),
        (lambda: spectral(TWO, True), ValueError, f"{WHOLE}, got True"),
        (lambda: affine_flow(PHI, 2, (2.5,)), ValueError, r"hidden must hold positive .* got \(2.5,\)"),
        (lambda: u1_coupling(ANGLES, 1, hidden=(0,)), ValueError, r"hidden must hold positive widths, got \(0,\)"),
        (lambda: u1_coupling(ANGLES, 1, radius=float("inf")), ValueError, "radius must be finite, got inf"),
        (lambda: affine_flow(PHI, 2, (2,), 3.0), ValueError, "kernel must be odd, got 3.0"),
        (lambda: continuous(PHI, dtype=torch.int64), ValueError, "dtype must be float32 or float64, got torch.int64"),
        (lambda: continuous(TWO, steps=1.5), ValueError, "steps must be a whole number of at least 1, got 1.5"),
        (lambda: Curriculum(3.0), TypeError, "start must be a Theory, got float"),
        (lambda: train(built("U(1)")[1], None, steps=1), TypeError, "theory a Theory, got Flow and NoneType"),
        (
            lambda: train(built("U(1)")[1], ANGLES, steps=1, curriculum=ANGLES),
            TypeError,
            "curriculum must be a Curriculum, got U1",
        ),
        (
            lambda: train(built("U(1)")[1], ANGLES, steps=1, loss="forward_kl", ensemble=ANGLES.cold(2) / 0),
            ValueError,
            "finite configurations, got 0 of 2",
        ),
        (lambda: evaluate(ANGLES, built("U(1)")[1], 4), TypeError, "got U1 and Flow"),
        (lambda: acceptance(torch.zeros(3, 4)), ValueError, r"log_w must have shape \(N\), got \(3, 4\)"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
