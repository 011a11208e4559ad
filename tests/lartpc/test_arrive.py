import pytest
import torch
from core.contract import Contract
from hepops.lartpc import Parameters, arrive, drift, recombine, velocity
from hepops.lartpc.arrive import arrive_tangents
from torch.testing import assert_close

from .test_drift import plain_velocity

NAMES = tuple(Parameters.SPEC)


class TestArrive(Contract):
    op = torch.ops.hepops.arrive.default
    function = staticmethod(arrive)
    large = 30_000

    @staticmethod
    def reference(deposits, parameters, model):
        dE, dEdx, cos2, depth, width, t0, *ratio = deposits
        local = ratio[0] if ratio else 1.0
        tau, E, A, k, D_T, D_L, alpha, beta, ratio, rho, temperature, w_ion = parameters
        v = plain_velocity(E, temperature)
        time = depth / v
        if model == "birks":
            fraction = A / (1 + k * dEdx / (E * local * rho))
        else:
            lean = (1 - cos2 + cos2 / ratio**2).sqrt() if model == "ellipsoid" else torch.ones_like(cos2)
            xi = beta / lean * dEdx / (E * local * rho)
            fraction = ((alpha + xi).log() / xi).clamp(min=0)
        charge = fraction * dE / w_ion * (-time / tau).exp()
        return torch.stack((charge, t0 + time, (2 * D_T * time).sqrt(), (2 * D_L * time).sqrt() / v, width / v))

    @staticmethod
    def sample(size, dtype=None, model="birks", rows=6, **at):
        """Numbers of order one, so that central differences resolve them; always float64."""
        deposits = 0.2 + torch.rand(rows, size, dtype=torch.float64, **at)
        deposits[2] = 0.8 * torch.rand(size, dtype=torch.float64, **at)
        values = (5.0, 0.5, 0.8, 0.3, 0.8, 0.4, 0.93, 0.4, 1.25, 1.38, 87.17, 0.7)
        return deposits, torch.tensor(values, dtype=torch.float64, **at), model

    def samples(self, **at):
        models = ("birks", "box", "ellipsoid")
        six = [self.sample(size, model=model, **at) for size in (0, 1, 60) for model in models]
        return six + [self.sample(60, model=model, rows=7, **at) for model in models]

    def operands(self, args):
        return *args[:2], ("birks", "box", "ellipsoid").index(args[2])

    @staticmethod
    def rounding(dtype):
        return {"rtol": 2e-13, "atol": 1e-14}  # float64 for both; the velocity's slope is a difference of three terms

    def test_refuses_other_dtypes(self, device):
        for kind in (torch.int64, torch.float16, torch.float32, torch.complex64):
            deposits, parameters, model = self.sample(3, device=device)
            with pytest.raises(TypeError, match="deposits must be float64"):
                arrive(deposits.to(kind), parameters, model)
            with pytest.raises(TypeError, match="parameters"):
                arrive(deposits, parameters.to(kind), model)


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("model", ["birks", "box", "ellipsoid"])
def test_tangents_are_the_jacobian(model, rows):
    deposits, parameters, _ = TestArrive.sample(40, rows=rows)
    seeds = torch.randn(4, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda p: TestArrive.reference(deposits, p, model), parameters)
    ours = arrive_tangents(deposits, parameters, seeds, model)
    assert_close(ours, torch.einsum("fnp,kp->kfn", jacobian, seeds), rtol=1e-12, atol=1e-12)


def test_a_local_field_equal_to_the_drift_field_changes_no_bit():
    deposits, parameters, model = TestArrive.sample(100)
    one = torch.cat([deposits, torch.ones_like(deposits[:1])])
    assert torch.equal(arrive(deposits, parameters, model), arrive(one, parameters, model))


def test_charge_recombines_in_the_local_field_and_drifts_in_the_other():
    deposits, parameters, model = TestArrive.sample(50)
    local = torch.cat([deposits, torch.full_like(deposits[:1], 1.2)])
    stronger = parameters.clone()
    stronger[1] *= 1.2
    ours, plain, there = (
        arrive(*x, model) for x in ((local, parameters), (deposits, parameters), (deposits, stronger))
    )
    assert_close(ours[1:], plain[1:], rtol=0, atol=0)
    drift_of = [
        (-x[3] / plain_velocity(p[1], p[10]) / p[0]).exp() for x, p in ((deposits, parameters), (deposits, stronger))
    ]
    assert_close(ours[0] / drift_of[0], there[0] / drift_of[1], rtol=1e-13, atol=0)


def test_is_recombination_then_drift():
    """The operators of the two laws, at nominal values."""
    n = 50
    rows = torch.rand(6, n, dtype=torch.float64)
    rows[1], rows[3] = 1 + 10 * rows[1], 30 * rows[3]
    values = torch.tensor([getattr(Parameters(), name) for name in NAMES], dtype=torch.float64)
    charge, time, sigma, sigma_time, width_time = arrive(rows, values)
    at = drift(rows[3])
    assert_close(charge, recombine(rows[1]) * rows[0] / 23.6e-6 * at.survival, rtol=1e-13, atol=0)
    assert_close(time, rows[5] + at.time, rtol=1e-14, atol=0)
    assert_close(sigma, at.sigma_t, rtol=1e-14, atol=0)
    assert_close(sigma_time, at.sigma_l / velocity(0.5), rtol=1e-14, atol=0)
    assert_close(width_time, rows[4] / velocity(0.5), rtol=1e-14, atol=0)


def test_gradients_at_the_anode_are_finite():
    deposits, parameters, model = TestArrive.sample(3)
    deposits[3] = 0.0
    deposits.requires_grad_(), parameters.requires_grad_()
    for slope in torch.autograd.grad(arrive(deposits, parameters, model).sum(), (deposits, parameters)):
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, p: (d[:5], p), r"deposits must be \(6, N\), .*got \(5, 3\)"),
        (lambda d, p: (d[0], p), r"deposits must be \(6, N\), .*got \(3,?\)"),
        (lambda d, p: (d, p[:6]), r"parameters must be \(12,?\), got \(6,?\)"),
        (lambda d, p: (d, p, "none"), r"model must be one of \['birks', 'box', 'ellipsoid'\], got 'none'"),
    ],
)
def test_refuses(change, message):
    deposits, parameters, _ = TestArrive.sample(3)
    with pytest.raises(ValueError, match=message):
        arrive(*change(deposits, parameters))
