"""Exact answers: against 40-digit numbers, against each other, and against plain integrals."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lattice import U1, Phi4, exact

GROUPS = ("U1", "SU2", "SU3")


@pytest.fixture(scope="module")
def gauge():
    return json.loads(shared("golden/flows/exact_2d_gauge.json").read_text())


@pytest.fixture(scope="module")
def scalar():
    return json.loads(shared("golden/flows/scalar_exact.json").read_text())


@pytest.mark.parametrize("group", GROUPS)
def test_golden_gauge_theories(gauge, group):
    rows = gauge[f"{group}_2D"]
    assert rows
    for beta, row in rows.items():
        b = float(beta)
        assert exact.plaquette(group, b) == pytest.approx(float(row["plaq_inf"]), rel=1e-12)
        assert exact.characters(group, b).log_a0 == pytest.approx(float(row["lnz_per_plaq_inf"]), rel=1e-12)
        for L in (4, 8, 16):
            if f"L{L}" not in row:
                continue
            known = row[f"L{L}"]
            assert exact.log_z(group, b, L * L) == pytest.approx(float(known["lnZ"]), rel=1e-12)
            assert exact.plaquette(group, b, L * L) == pytest.approx(float(known["plaq"]), rel=1e-12)
            if "Q2_over_V" in known:
                assert exact.chi_top(b, L * L) == pytest.approx(float(known["Q2_over_V"]), rel=1e-12)
        if "chi_top_inf" in row:
            assert exact.chi_top(b) == pytest.approx(float(row["chi_top_inf"]), rel=1e-12)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("beta", [-3.0, -0.1, 0.0, 1e-9, 0.3, 50.0, 300.0])
def test_laws_at_any_beta(group, beta):
    """A loop around one plaquette is the plaquette, which is the slope of ln Z; around none, 1."""
    for volume in (1, 2, 12, None):
        one = exact.wilson_loop(group, beta, 1, volume)
        assert one == pytest.approx(exact.plaquette(group, beta, volume), rel=1e-11, abs=1e-13)
        assert exact.wilson_loop(group, beta, 0, volume) == pytest.approx(1, abs=1e-12)
        if volume is not None:
            h = 1e-3 * max(1.0, abs(beta))
            values = [exact.log_z(group, beta + k * h, volume) for k in (-2, -1, 1, 2)]
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)  # leaves h^4 / 30
            assert volume * one == pytest.approx(slope, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("group", ["U1", "SU2"])
def test_one_plaquette_by_quadrature(group):
    """a_r d_r = int dU chi_r e^{beta Re tr U / N}, by the trapezoidal rule."""
    beta = 1.3
    theta = 2 * np.pi * (np.arange(400) + 0.5) / 400
    weight = np.exp(beta * np.cos(theta)) * (2 * np.sin(theta) ** 2 if group == "SU2" else 1) / 400
    fundamental = 2 * np.cos(theta) if group == "SU2" else np.cos(theta)
    assert exact.log_z(group, beta, 40) == pytest.approx(40 * math.log(weight.sum()), rel=1e-9)  # other irreps: 1e-10
    c = exact.characters(group, beta)
    assert math.exp(c.log_a0) == pytest.approx(weight.sum(), rel=1e-13)
    assert c.a[1] * math.exp(c.log_a0) * c.dimension[1] == pytest.approx((weight * fundamental).sum(), rel=1e-13)


def test_su3_by_bessel_functions():
    """f_r = sum_q det I_{lam_j - j + i + q}(beta / 3): another form of the same."""
    beta = 4.0
    log_i0, ratio = exact.bessel_ratios(beta / 3, 60)
    c = exact.characters("SU3", beta)
    lams = [(0, 0, 0), (1, 0, 0), (1, 1, 0)]
    for k, lam in enumerate(lams):
        f = sum(
            np.linalg.det([[ratio[abs(lam[j] - j + i + q)] for j in range(3)] for i in range(3)])
            for q in range(-25, 26)
        )
        ours = c.a[[0, 2, 1][k]] * math.exp(c.log_a0 - 3 * log_i0) * c.dimension[[0, 2, 1][k]]
        assert ours == pytest.approx(f, rel=1e-12)


def test_bessel_ratios():
    for x in (0.0, 1e-9, 0.7, 25.0, 4000.0, -3.0):
        log_i0, ratio = exact.bessel_ratios(x, 3)
        y = torch.tensor(x, dtype=torch.float64)
        assert log_i0 - abs(x) == pytest.approx(torch.special.i0e(y).log().item(), rel=1e-13, abs=1e-14)
        assert ratio[1] == pytest.approx((torch.special.i1e(y) / torch.special.i0e(y)).item(), rel=1e-13)
    _, ratio = exact.bessel_ratios(2.0, 30)
    series = sum(1 / (math.factorial(k) * math.factorial(30 + k)) for k in range(30))
    assert ratio[30] * torch.special.i0(torch.tensor(2.0).double()).item() == pytest.approx(series, rel=1e-13)


def test_refuses():
    for call, message in [
        (lambda: exact.log_z("SU4", 1.0, 4), "group must be one of U1, SU2, SU3, got 'SU4'"),
        (lambda: exact.plaquette("U1", math.inf), "beta must be a finite number, got inf"),
        (lambda: exact.wilson_loop("U1", 1.0, 5, 4), r"area must lie in 0 \.\.\. volume = 4, got 5"),
        (lambda: exact.free.log_z((4,), (-2.0, 3.0, 0.5)), "lam must be 0, got 0.5"),
        (lambda: exact.free.log_z((4,), (-2.0, 2.0, 0.0)), "no lower bound"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_theories_say_what_they_know():
    known = U1((4, 4), 2.0).exact()
    assert set(known) == {"log_z", "plaquette", "action", "chi_top"}
    assert known["action"] == pytest.approx(-32 * known["plaquette"])
    assert U1((4, 4), 2.0).exact_log_z() == known["log_z"]
    assert U1((2, 2, 2), 2.0).exact() == {} and U1((2, 2, 2), 2.0).exact_log_z() is None
    assert Phi4((8, 8), m2=-4.0, lam=8.0).exact() == {} and Phi4((8, 8), m2=-4.0, lam=8.0).exact_log_z() is None


FREE = [("L8_D2_m2_0.25", 8, 2), ("L16_D2_m2_0.1", 16, 2), ("L8_D2_m2_1.0", 8, 2), ("L4_D4_m2_0.5", 4, 4)]
FREE.append(("L6_D3_m2_0.3", 6, 3))


@pytest.mark.parametrize(("name", "L", "D"), FREE)
def test_golden_free_fields(scalar, name, L, D):
    m2, row = float(name.split("_")[-1]), scalar[f"free_{name}"]
    propagators = np.load(shared("golden/flows/free_field.npz"))
    a, b = (Phi4((L,) * D, m2=m2, lam=0.0, convention=c) for c in "AB")
    for theory, convention in ((a, "A"), (b, "B")):
        G = exact.free.propagator(theory.shape, theory.law)
        np.testing.assert_allclose(G, propagators[f"free_{name}_G_conv{convention}"], rtol=1e-12, atol=1e-15)
        assert theory.exact_log_z() == pytest.approx(row[f"lnZ_conv{convention}"], rel=1e-12)
        known = theory.exact()
        assert known["pole_mass"] == pytest.approx(row["pole_mass"], rel=1e-12)
        assert known["action"] == row["action_mean_convA_or_B"] == L**D / 2
    assert b.exact()["phi2"] == pytest.approx(row["G(0)_convB"], rel=1e-12)
    C = exact.free.correlator(b.shape, b.law)
    np.testing.assert_allclose(C, row["C_t_convB"], rtol=1e-12)
    E, t = row["pole_mass"], np.arange(L)
    np.testing.assert_allclose(C, np.cosh(E * (t - L / 2)) / (2 * np.sinh(E) * np.sinh(E * L / 2)), rtol=1e-12)


def test_free_field_by_its_matrix():
    """ln Z from the Hessian that the operator gives, on extents 1, 2 and 3, in convention C."""
    theory = Phi4((1, 2, 3), lam=0.0, kappa=0.1, convention="C")
    unit = torch.eye(6, dtype=torch.float64).view(6, 1, 2, 3)
    H = theory.hessian_vector(torch.zeros_like(unit), unit).view(6, 6)
    assert theory.exact_log_z() == pytest.approx(3 * math.log(2 * math.pi) - 0.5 * H.logdet().item(), rel=1e-12)
    inverse = H.inverse()[0].view(1, 2, 3).numpy()
    np.testing.assert_allclose(exact.free.propagator(theory.shape, theory.law), inverse, rtol=1e-12)


CHAINS = ["1D_L8_m2_-4.0_lam_8.0", "1D_L16_m2_1.0_lam_0.5", "1D_L8_m2_-2.0_lam_1.0"]
STRIPS = ["2D_2x4_m2_-4.0_lam_8.0", "2D_2x8_m2_-4.0_lam_8.0", "2D_2x8_m2_-4.0_lam_6.0"]


@pytest.mark.parametrize("name", CHAINS + STRIPS)
def test_golden_interacting_fields(scalar, name):
    row = scalar["interacting_exact_convA"][name]
    _, extents, _, m2, _, lam = name.split("_")
    shape = [int(L) for L in extents.removeprefix("L").split("x")]
    theory = Phi4(shape, m2=float(m2), lam=float(lam))
    known = theory.exact()
    # the golden chains to 1e-13; the strips' grid leaves 5e-9 in ln Z and 2e-10 in <phi^2>
    log_z, moments = (1e-11, 1e-12) if len(shape) == 1 else (5e-9, 3e-10)
    assert known["log_z"] == pytest.approx(row["lnZ"], abs=log_z)
    assert known["phi2"] == pytest.approx(row["phi2"], abs=moments)
    assert known["phi4"] == pytest.approx(row["phi4"], abs=moments)
    if len(shape) == 1:
        C = exact.transfer.chain_correlator(shape[0], theory.law)
        np.testing.assert_allclose(C, row["C_t"], rtol=0, atol=1e-13)
    else:
        turned = Phi4(shape[::-1], m2=float(m2), lam=float(lam))
        assert turned.exact_log_z() == pytest.approx(known["log_z"], abs=1e-12)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (1, 2), (2, 1, 2), (1, 1)])
@pytest.mark.parametrize("convention", ["A", "C"])
def test_small_lattices_by_quadrature(shape, convention):
    """All fields on a grid: the trapezoidal rule in as many dimensions as there are sites."""
    couplings = {"A": {"m2": -1.0, "lam": 1.0}, "C": {"lam": 0.7, "kappa": -0.2}}[convention]
    theory = Phi4(shape, convention=convention, **couplings)
    V = theory.sites
    points = {1: 200, 2: 80, 3: 44, 4: 28}[V]  # spacings whose error is below 1e-6
    line = torch.linspace(-3.4, 3.4, points, dtype=torch.float64)
    phi = torch.cartesian_prod(*[line] * V).view(-1, *shape)
    weight = (-theory.action(phi)).exp()
    Z = weight.sum() * (line[1] - line[0]) ** V
    known = theory.exact()
    assert known["log_z"] == pytest.approx(Z.log().item(), abs=1e-6)
    mean = lambda x: ((x.flatten(1).mean(1) * weight).sum() / weight.sum()).item()  # noqa: E731
    assert known["phi2"] == pytest.approx(mean(phi**2), abs=1e-6)
    assert known["phi4"] == pytest.approx(mean(phi**4), abs=1e-6)
    action = ((theory.action(phi) * weight).sum() / weight.sum()).item()
    assert known["action"] == pytest.approx(action, abs=1e-6)


def test_a_strip_of_three_is_a_strip_whichever_way():
    """3 x 2 as a strip of two and as one of three: two different matrices."""
    law = Phi4((3, 2), m2=-4.0, lam=8.0).law
    two, three = (
        exact.transfer._strip(w, L, law, exact.transfer._reach(law, 2), 128, m) for w, L, m in ((2, 3, 20), (3, 2, 9))
    )
    for name in two:
        assert two[name] == pytest.approx(three[name], rel=1e-9)


def test_what_does_not_converge_is_not_given():
    assert Phi4((3, 8), m2=-4.0, lam=1.0).exact() == {}


def test_conventions_agree_on_log_z():
    theory = Phi4((2, 4), m2=-4.0, lam=8.0)
    for convention, (other, scale, log_z) in ((c, theory.to_convention(c)) for c in "BC"):
        assert other.convention == convention
        known, own = other.exact(), theory.exact()
        assert known["log_z"] == pytest.approx(own["log_z"] + log_z, abs=1e-10)
        assert known["phi2"] == pytest.approx(own["phi2"] * scale**2, rel=1e-10)
        assert known["action"] == pytest.approx(own["action"], rel=1e-10)


def test_small_torus_by_quadrature():
    """U(1) on 2 x 1 plaquettes: the integral over its links by the trapezoidal rule."""
    beta, points = 0.9, 24
    theta = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    links = torch.stack([x.flatten() for x in torch.meshgrid(*[theta] * 3, indexing="ij")], 1)
    field = torch.zeros(len(links), 2, 2, 1, dtype=torch.float64)  # one of four links is a gauge choice
    for k, (mu, x) in enumerate(itertools.islice(itertools.product(range(2), range(2)), 1, 4)):
        field[:, mu, x, 0] = links[:, k]
    theory = U1((2, 1), beta)
    weight = (-theory.action(field)).exp()
    assert theory.exact_log_z() == pytest.approx(weight.mean().log().item(), rel=1e-12)
    mean = (weight * theory.plaquette(field)).sum() / weight.sum()
    assert theory.exact()["plaquette"] == pytest.approx(mean.item(), rel=1e-12)
