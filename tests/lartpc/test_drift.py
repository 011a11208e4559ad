import numpy as np
import pytest
import torch
from core.contract import Contract
from hepops.lartpc import drift, recombine, velocity
from torch.testing import assert_close

from .test_recombine import JAX_RUNS, jax_run, shared


def plain_velocity(E, temperature):
    a0, a1, a2, a3, a4, a5 = 551.6, 7158.3, 4440.43, 4.29, 43.63, 0.2053
    mobility = (a0 + a1 * E + a2 * E**1.5 + a3 * E**2.5) / (1 + a1 / a0 * E + a4 * E**2 + a5 * E**3)
    return mobility * (temperature / 89) ** -1.5 * E / 1000


class TestDrift(Contract):
    op = torch.ops.hepops.drift.default
    function = staticmethod(drift)
    twice = True

    @staticmethod
    def reference(distance, lifetime, field, D_T, D_L, temperature):
        time = distance / plain_velocity(field, temperature)
        return (-time / lifetime).exp(), time, (2 * D_T * time).sqrt(), (2 * D_L * time).sqrt()

    @staticmethod
    def sample(size, **at):
        """Numbers of order one: central differences of step 1e-6 cannot resolve 1e-6 cm^2/us, nor a part of 1e9."""
        parameters = (torch.tensor(p, **at) for p in (5.0, 0.5, 0.8, 0.4, 87.17))
        return 0.1 + torch.rand(size, **at), *parameters

    def operands(self, args):
        distance, *parameters = args
        return distance, torch.stack(parameters)

    @staticmethod
    def rounding(dtype):
        """The slope of the velocity is a difference of three terms, ten times its size."""
        return {"rtol": 100 * torch.finfo(dtype).eps, "atol": 16 * torch.finfo(dtype).eps}


def test_velocity():
    assert velocity(0.5) == pytest.approx(0.1596452, abs=5e-8)
    assert velocity(0.5) == pytest.approx(plain_velocity(0.5, 87.17), rel=1e-14)
    slope = (velocity(0.5 * (1 + 1e-5)) - velocity(0.5 * (1 - 1e-5))) / (2e-5 * velocity(0.5))
    assert slope == pytest.approx(0.5005, abs=5e-5)  # d ln v / d ln E
    with pytest.raises(ValueError, match=r"field must be positive \[kV/cm\], got -0.5"):
        velocity(-0.5)


def test_small_diffusions_keep_their_gradients():
    """Of the nominal size, against autograd of the formula."""
    distance = torch.tensor([1.0, 30.0], dtype=torch.float64)
    parameters = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in (2200.0, 0.5, 8.8e-6, 4e-6, 87.17)]
    for ours, theirs in zip(drift(distance, *parameters), TestDrift.reference(distance, *parameters), strict=True):
        assert_close(ours, theirs, rtol=1e-14, atol=0)
        pair = (
            torch.autograd.grad(f.sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for f in (ours, theirs)
        )
        assert_close(*pair, rtol=1e-13, atol=0)


def test_at_the_anode_gradients_are_finite(device, dtype):
    distance = torch.zeros(3, device=device, dtype=dtype, requires_grad=True)
    D_T = torch.tensor(8.8e-6, device=device, dtype=dtype, requires_grad=True)
    arrival = drift(distance, transverse_diffusion=D_T)
    assert_close(arrival.survival, torch.ones_like(distance))
    assert not arrival.time.any() and not arrival.sigma_t.any() and not arrival.sigma_l.any()
    slope, slope_D = torch.autograd.grad(sum(a.sum() for a in arrival), (distance, D_T))
    assert_close(slope, torch.full_like(slope, (1 - 1 / 2200) / velocity(0.5)))  # of survival and time alone
    assert slope_D == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lifetime": 0.0}, r"lifetime must be positive \[us\], got 0"),
        ({"field": -0.5}, r"field must be positive \[kV/cm\], got -0.5"),
        ({"transverse_diffusion": -1.0}, r"transverse_diffusion must not be negative \[cm\^2/us\], got -1"),
        (
            {"longitudinal_diffusion": float("nan")},
            r"longitudinal_diffusion must not be negative \[cm\^2/us\], got nan",
        ),
        ({"temperature": torch.ones(2)}, r"temperature must hold one number, got shape \(2,\)"),
    ],
)
def test_refuses_what_has_no_meaning(arguments, message):
    with pytest.raises(ValueError, match=message):
        drift(torch.ones(1), **arguments)


def jax_distance(data, track):
    """From the anode, the first of each TPC's borders in z, which is the file's x."""
    plane = torch.from_numpy(data["pixel_plane"].astype(np.int64))
    return (track("z") - torch.from_numpy(data["tpc_borders"].astype(np.float32))[plane, 2, 0]).abs()


@pytest.mark.parametrize("name", JAX_RUNS)
def test_arrivals_of_larnd_sim_jax(name):
    """Their time contains t0. The stored positions are float32, so the spreads of the f64 runs agree to that too."""
    data, track = jax_run(name)
    arrival = drift(jax_distance(data, track))
    golden = {key: torch.from_numpy(data[key]).double() for key in ("t_drift", "long_diff", "tran_diff")}
    electrons = recombine(track("dEdx")) * track("dE") * 42370 * arrival.survival
    assert_close(electrons.double(), torch.from_numpy(data["n_e_drift"]).double(), rtol=1e-6, atol=0)
    assert_close((arrival.time + track("t0")).double(), golden["t_drift"], rtol=1e-6, atol=0)
    assert_close(arrival.sigma_l.double(), golden["long_diff"], rtol=1e-6, atol=0)
    assert_close(arrival.sigma_t.double(), golden["tran_diff"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", JAX_RUNS)
def test_jacobian_of_larnd_sim_jax(name):
    """With respect to (lifetime, field, A, k, D_T, D_L), through recombination and drift."""
    data, track = jax_run(name)
    values = (2200.0, 0.5, 0.8, 0.0486, 8.8e-6, 4e-6)
    six = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in values]
    lifetime, field, A, k, D_T, D_L = six
    arrival = drift(jax_distance(data, track).double(), lifetime, field, D_T, D_L)
    electrons = recombine(track("dEdx").double(), A, k, field) * track("dE") * 42370 * arrival.survival
    ours = {"n_electrons": electrons, "t": arrival.time, "long_diff": arrival.sigma_l, "tran_diff": arrival.sigma_t}
    for key, output in ours.items():
        rows = [
            torch.autograd.grad(f, six, retain_graph=True, allow_unused=True, materialize_grads=True) for f in output
        ]
        golden = torch.from_numpy(data[f"J_drift_{key}"]).double()
        # The charge's slope in the field is a difference: of 1.3 (recombination) against 0.04 (lifetime).
        assert_close(torch.tensor(rows, dtype=torch.float64), golden, rtol=2e-6, atol=0)


def test_arrivals_of_larnd_sim():
    data = np.load(shared("golden/lartpc/dune_cudasim.npz"))
    after = data["tracks_drifted"]
    anode = data["TPC_BORDERS"][after["pixel_plane"], 2, 0]
    arrival = drift(torch.from_numpy(np.abs(after["z"] - anode)).float())
    electrons = data["quench_birks_n_electrons"] * arrival.survival.double().numpy()
    np.testing.assert_allclose(after["n_electrons"], electrons, rtol=1e-6)
    np.testing.assert_allclose(after["t"] - data["tracks_in"]["t0"], arrival.time.numpy(), rtol=1e-6)
    np.testing.assert_allclose(after["long_diff"], arrival.sigma_l.numpy(), rtol=1e-6)
    np.testing.assert_allclose(after["tran_diff"], arrival.sigma_t.numpy(), rtol=1e-6)
