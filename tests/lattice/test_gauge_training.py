"""Training of gauge flows: every loss, curricula, transfer, resumption; ln Z against exact values."""

import math

import pytest
import torch
from hepops.lattice import SUN, U1
from hepops.lattice.flows import (
    Curriculum,
    acceptance,
    evaluate,
    log_weights,
    spectral,
    train,
    train_volumes,
    transfer,
    u1_coupling,
)

from lattice.gauge_flows import stir, turned


def small(theory, layers=8, **options):
    torch.manual_seed(0)
    build = u1_coupling if isinstance(theory, U1) else spectral
    return build(theory, layers, hidden=(12,), bins=4, radius=1.5, **options)


def exact_u1(theory):
    angle = torch.arange(512, dtype=torch.float64) * (2 * math.pi / 512)
    series = torch.fft.rfft((theory.beta * angle.cos()).exp()).real[:20] / 512
    return torch.cat([series, series[1:]]).pow(theory.sites).sum().log().item()


@pytest.mark.parametrize("loss", ["reverse_kl", "path", "reinforce"])
@pytest.mark.parametrize(
    "theory", [U1((4, 4), 1.0), SUN(2, (4, 4), 1.5), SUN(3, (4, 4), 2.0)], ids=["U1", "SU2", "SU3"]
)
def test_losses_lower_the_divergence(theory, loss):
    flow = small(theory, layers=2)
    before = evaluate(flow, theory, 500).kl
    train(flow, theory, steps=30, batch=64, lr=2e-2, loss=loss)
    assert evaluate(flow, theory, 500).kl < 0.9 * before


def test_forward_kl_of_an_ensemble():
    theory = U1((4, 4), 0.8)
    hot = theory.random(4000, seed=3)
    kept = hot[(theory.log_prob(hot) - 0.8 * 16 * 0.6).exp() > torch.rand(4000, dtype=torch.float64)]
    flow = small(theory, layers=4)
    training = train(flow, theory, steps=60, batch=64, lr=1e-2, loss="forward_kl", ensemble=kept)
    assert sum(training.history["loss"][-20:]) < sum(training.history["loss"][:20]) - 20 * 0.2


def test_ln_z_of_a_trained_flow():
    theory = U1((4, 4), 1.0)
    flow = small(theory, layers=8, dtype=torch.float32)
    train(flow, theory, steps=150, batch=64, lr=1e-2, curriculum=Curriculum(U1((4, 4), 0.3)))
    result = evaluate(flow, theory, 4096)
    assert result.ess > 0.5
    assert abs(result.log_z - exact_u1(theory)) < 3 * result.log_z_error
    assert result.log_z_error == pytest.approx(math.sqrt((1 / result.ess - 1) / 4095), rel=1e-9)


def test_a_curriculum_begins_at_its_start_and_ends_at_the_theory():
    start, theory = U1((4, 4), 0.5), U1((4, 4), 2.0)
    x = theory.random(3, seed=1)
    curriculum = Curriculum(start, share=0.5)
    for progress, wanted in ((0.0, start), (0.25, U1((4, 4), 1.25)), (0.5, theory), (0.9, theory)):
        torch.testing.assert_close(curriculum.log_prob(theory, progress)(x), wanted.log_prob(x))


def test_weights_go_to_another_volume():
    small_theory, large = U1((4, 4), 1.0), U1((8, 4), 1.0)
    trained = stir(small(small_theory))
    larger = transfer(trained, small(large))
    x, _ = trained.sample_and_log_prob(2, seed=1)
    # the same configuration side by side: the same networks see the same loops
    twice, _ = larger.transform(torch.cat([x, x], 2))
    torch.testing.assert_close(twice, torch.cat([trained.transform(x)[0]] * 2, 2))
    with pytest.raises(ValueError, match=r"transform\S*weight has shape \(12, \d+\) in the trained flow and None"):
        transfer(trained, small(large, layers=4))


def test_volumes_one_after_the_other(tmp_path):
    theories = [U1((4, 4), 1.0), U1((8, 4), 1.0)]
    flow, trainings = train_volumes(small, theories, [60, 5], batch=32, lr=1e-2, folder=tmp_path)
    assert flow.event_shape == (2, 8, 4) and [t.step for t in trainings] == [60, 5]
    assert evaluate(flow, theories[1], 300).kl < 0.5 * evaluate(small(theories[1]), theories[1], 300).kl


class Killed(Exception):
    pass


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    theory = U1((4, 4), 1.0)
    options = {"steps": 12, "batch": 16, "curriculum": Curriculum(U1((4, 4), 0.2)), "ema": 0.9}
    whole = small(theory, layers=2)
    train(whole, theory, **options)

    def kill(step, steps, row):
        if step == 5:
            raise Killed

    again = small(theory, layers=2)
    with pytest.raises(Killed):
        train(again, theory, **options, folder=tmp_path, progress=kill)
    train(again, theory, **options, folder=tmp_path)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="belongs to another training, it differs in theory"):
        train(again, U1((4, 4), 1.1), **options, folder=tmp_path)


@pytest.mark.parametrize("recompute", ["inputs", "inverse"])
@pytest.mark.parametrize("theory", [U1((4, 4), 1.0), SUN(3, (4, 4), 2.0)], ids=["U1", "SU3"])
def test_recomputed_stacks_have_the_same_gradients(theory, recompute):
    gradients = []
    for how in (None, recompute):
        flow = stir(small(theory, layers=4, recompute=how), 0.1)
        x, log_q = flow.rsample_and_log_prob(8, seed=1)
        (log_q - theory.log_prob(x)).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-7 * gradients[0].norm()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_density_is_gauge_invariant(n):
    theory = U1((4, 4), 1.0) if n == 1 else SUN(n, (4, 4), 1.0)
    flow = stir(small(theory, layers=8))
    x, log_q = flow.sample_and_log_prob(4, seed=1)
    assert (flow.log_prob(turned(x)) - log_q).abs().max() < 1e-9


def test_acceptance_is_that_of_a_chain():
    """min(1, w'/w), in a chain that begins in equilibrium, against the mean over pairs."""
    log_w = torch.tensor([0.0, 1.0, -0.5, 0.3], dtype=torch.float64)
    w = log_w.exp()
    pairs = [(w[i] / w.sum() * min(1.0, w[j] / w[i])).item() for i in range(4) for j in range(4) if i != j]
    assert acceptance(log_w).item() == pytest.approx(sum(pairs) / 3, rel=1e-14)
    assert acceptance(log_w[:1]).isnan()


def test_weights_do_not_depend_on_the_batch():
    theory = SUN(2, (4, 4), 1.0)
    flow = stir(small(theory, layers=2), 0.1)
    torch.testing.assert_close(
        log_weights(flow, theory, 50, batch=7), log_weights(flow, theory, 50), rtol=0, atol=1e-11
    )


def test_refusals():
    theory = U1((4, 4), 1.0)
    flow = small(theory, layers=1)
    with pytest.raises(ValueError, match=r"loss must be .* got 'kl'"):
        train(flow, theory, steps=1, loss="kl")
    with pytest.raises(ValueError, match="an ensemble goes with loss='forward_kl', got one with loss='path'"):
        train(flow, theory, steps=1, loss="path", ensemble=theory.cold(3))
    with pytest.raises(ValueError, match=r"flow is of fields \(2, 4, 4\), theory of \(2, 8, 4\)"):
        train(flow, U1((8, 4), 1.0), steps=1)
    with pytest.raises(ValueError, match=r"must start from fields \(2, 4, 4\), got \(2, 4, 8\)"):
        train(flow, theory, steps=1, curriculum=Curriculum(U1((4, 8), 1.0)))
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        Curriculum(theory, share=0)
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1, got 0"):
        evaluate(flow, theory, 0)
    with pytest.raises(ValueError, match="layers must be a whole number of at least 1, got 0"):
        u1_coupling(theory, 0)
    with pytest.raises(ValueError, match="bijection must be 'spline' or 'ncp', got 'affine'"):
        u1_coupling(theory, 1, "affine")
    with pytest.raises(ValueError, match="loop must be 'plaquette' or 'staples', got 'square'"):
        u1_coupling(theory, 1, loop="square")
    with pytest.raises(ValueError, match="N must be 2 or 3, got 4"):
        spectral(SUN(4, (4, 4), 1.0), 1)
    with pytest.raises(ValueError, match=r"must have shape \(\*batch, 2, 4, 4\), got \(1, 2, 4, 5\)"):
        flow.transform(torch.zeros(1, 2, 4, 5, dtype=torch.float64))
