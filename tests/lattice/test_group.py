"""Eigenphases, logarithm, projection, Haar measure and storage of SU(N) matrices."""

import math

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops.lattice import group
from hepops.lattice.group.exponential import formula as exp_formula
from hepops.lattice.group.project import formula as polar_formula
from hepops.lattice.group.project import log_formula
from torch.testing import assert_close


def matrices(size, n, device="cpu", dtype=torch.float64):
    M = torch.randn(size, n, n, device=device, dtype=torch.complex128)
    return M.to(torch.promote_types(dtype, torch.complex64))


class Algebra:
    """A function of matrices, given one that is at hand, so that differences stay where it is defined."""

    large = 10_000
    sizes = (0, 11)
    refused = (torch.int64, torch.float64)
    refusal = "must be complex64 or complex128"

    def sample(self, size, device="cpu", dtype=torch.float64):
        return [matrices(3 if size == 15 else size, self.n, device, dtype)]  # 15 for second derivatives takes long

    @staticmethod
    def rounding(dtype):
        bound = 1e-3 if dtype == torch.float32 else 1e-11  # rounding over the least gap of a few matrices
        return {"rtol": bound, "atol": bound}


class Projection(Algebra):
    op = torch.ops.hepops._lattice_project.default
    function = staticmethod(group.project)
    reference = staticmethod(polar_formula)
    twice = True


class TestProjectionToSU2(Projection, Contract):
    n = 2


class TestProjectionToSU3(Projection, Contract):
    n = 3


class OnGroup(Algebra):
    def operands(self, args):
        return [group.exp(args[0]).detach()]


class Logarithm(OnGroup):
    op = torch.ops.hepops._lattice_log.default
    function = staticmethod(lambda X: group.log(group.exp(X)))
    reference = staticmethod(lambda X: log_formula(exp_formula(X)))
    twice = True


class TestLogarithmOfSU2(Logarithm, Contract):
    n = 2


class TestLogarithmOfSU3(Logarithm, Contract):
    n = 3


def invariants(values, V):
    """What does not depend on the vectors' phases: the values, and the projector on each vector."""
    return values, V.mT[..., :, None] * V.mT.conj()[..., None, :]


def plain_eig(X):
    values, V = torch.linalg.eigh(-1j * group.traceless_antihermitian(X))
    wrapped = torch.remainder(values + math.pi, 2 * math.pi) - math.pi
    phases, order = group.eigen.alcove(wrapped)
    return invariants(phases, V.gather(-1, order[..., None, :].expand_as(V)))


class Eigen(OnGroup):
    op = torch.ops.hepops._lattice_eig.default
    function = staticmethod(lambda X: invariants(*group.eig(group.exp(X))))
    reference = staticmethod(plain_eig)


class TestEigenOfSU2(Eigen, Contract):
    n = 2


class TestEigenOfSU3(Eigen, Contract):
    n = 3


class Hermitian(Algebra):
    op = torch.ops.hepops._lattice_eigh.default
    function = staticmethod(lambda H: invariants(*group.eigh(H)))
    reference = staticmethod(lambda H: invariants(*torch.linalg.eigh((H + H.mH) / 2)))


class TestHermitian2(Hermitian, Contract):
    n = 2


class TestHermitian3(Hermitian, Contract):
    n = 3


def test_golden_alcove(device):
    golden = {k: torch.from_numpy(v) for k, v in np.load(shared("golden/flows/lattice_kernels.npz")).items()}
    phases, V = group.eig(golden["su3_eig_U"].to(device))
    assert_close(phases.cpu(), golden["su3_eig_phases_alcove"], rtol=1e-12, atol=1e-12)
    assert_close(group.haar_log_density(phases).cpu(), golden["su3_eig_logHaar"], rtol=1e-12, atol=1e-11)
    rebuilt = V * torch.polar(torch.ones_like(phases), phases)[..., None, :] @ V.mH
    assert_close(rebuilt.cpu(), golden["su3_eig_U"], rtol=0, atol=1e-14)


THIRD = 2 * math.pi / 3


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-11, 1e-8, 1e-5, 1e-2])
@pytest.mark.parametrize(
    "phases, along",
    [
        ([0.0, 0.0], [1, -1]),
        ([math.pi, math.pi], [1, -1]),
        ([1.0, 1.0, -2.0], [0, 1, -1]),
        ([0.0, 0.0, 0.0], [1, 2, -3]),
        ([THIRD, THIRD, THIRD], [1, -2, 1]),
        ([math.pi, math.pi, 0.0], [1, -1, 0]),
        ([0.5, math.pi - 0.5, -math.pi], [1, 0, -1]),  # equal sines: the hermitian part tells them apart
        ([0.5, -0.5, 0.0], [1, -1, 0]),
    ],
)
def test_eigen_near_degenerate_values(phases, along, gap, device):
    """Backward stable: product, orthogonality and phases to rounding, whatever the gaps are."""
    n = len(phases)
    phases = torch.tensor([p + gap * a for p, a in zip(phases, along, strict=True)], dtype=torch.float64, device=device)
    V = group.random(n, 200, seed=1).to(device)
    U = V * torch.polar(torch.ones_like(phases), phases) @ V.mH
    found, vectors = group.eig(U)
    one = torch.eye(n, dtype=U.dtype, device=device).expand_as(U)
    assert_close(vectors.mH @ vectors, one, rtol=0, atol=4e-15)
    assert_close(vectors * torch.polar(torch.ones_like(found), found)[..., None, :] @ vectors.mH, U, rtol=0, atol=5e-15)
    assert (found.diff(dim=-1) >= 0).all()
    assert (found[..., -1] - found[..., 0] <= 2 * math.pi + 1e-14).all()
    assert_close(found.sum(-1), torch.zeros_like(found[..., 0]), rtol=0, atol=4e-15)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-9, 1.0, 1e100])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_hermitian_of_any_size(n, scale, shift, device):
    """Against numpy.linalg.eigvalsh."""
    H = matrices(200, n, device)
    H = scale * (H + H.mH) + shift * scale * 1e3 * torch.eye(n, dtype=H.dtype, device=device)
    values, V = group.eigh(H)
    size = max(H.abs().max().item(), 1e-300)
    assert_close(values.cpu() / size, torch.from_numpy(np.linalg.eigvalsh(H.cpu().numpy())) / size, rtol=0, atol=1e-14)
    assert_close(V * (values / size)[..., None, :] @ V.mH, H / size, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_logarithm_undoes_the_exponential(n, device):
    U = group.random(n, 100, seed=1).to(device)
    X = group.log(U)
    assert_close(group.exp(X), U, rtol=0, atol=1e-13)
    assert_close(group.traceless_antihermitian(X), X, rtol=0, atol=1e-14)
    small = group.from_coordinates(torch.randn(100, n * n - 1, dtype=torch.float64, device=device), n) / 2
    assert_close(group.log(group.exp(small)), small, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3])
def test_logarithm_near_the_identity(n, device):
    """Where all eigenvalues meet, log is the identity of the algebra, and so is its gradient."""
    for scale in (1e-3, 1e-9, 0.0):
        X = scale * group.traceless_antihermitian(matrices(20, n, device))
        U = group.exp(X).requires_grad_()
        log = group.log(U)
        assert_close(log, X, rtol=0, atol=1e-15)
        seed = group.traceless_antihermitian(matrices(20, n, device))
        assert_close(torch.autograd.grad(log, U, seed)[0], seed, rtol=0, atol=10 * scale + 1e-14)


def test_logarithm_of_a_rotation(device):
    """A closed form: of the rotation of a plane by a, a times its generator."""
    a = torch.linspace(-3, 3, 20, dtype=torch.float64, device=device)
    U = torch.zeros(20, 3, 3, dtype=torch.complex128, device=device)
    U[:, 0, 0] = U[:, 1, 1] = a.cos().to(U.dtype)
    U[:, 0, 1] = a.sin().to(U.dtype)
    U[:, 1, 0] = -U[:, 0, 1]
    U[:, 2, 2] = 1
    X = torch.zeros_like(U)
    X[:, 0, 1] = a.to(U.dtype)
    X[:, 1, 0] = -X[:, 0, 1]
    assert_close(group.log(U), X, rtol=0, atol=1e-14)


def test_projection_is_numpys(device):
    """A loop over matrices: V W^+ of the singular value decomposition, with the determinant's root."""
    matrix = matrices(20, 3, device)
    for M, U in zip(matrix.cpu().numpy(), group.project(matrix).cpu().numpy(), strict=True):
        V, _, W = np.linalg.svd(M)
        Q = V @ W
        assert np.abs(U - Q * np.exp(-1j * np.angle(np.linalg.det(Q)) / 3)).max() < 1e-13


@pytest.mark.parametrize("method", ["polar", "gram-schmidt"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_projection(n, method, device, dtype):
    U = group.random(n, 50, seed=1, dtype=dtype).to(device)
    eps = torch.finfo(dtype).eps
    assert_close(group.project(U, method), U, rtol=0, atol=32 * eps)
    near = U + 1e-3 * matrices(50, n, device, dtype)
    once = group.project(near, method)
    assert_close(once @ once.mH, torch.eye(n, dtype=U.dtype, device=device).expand_as(U), rtol=0, atol=32 * eps)
    assert_close(torch.linalg.det(once), torch.ones(50, dtype=U.dtype, device=device), rtol=0, atol=32 * eps)
    assert_close(group.project(3.7 * once, method), once, rtol=0, atol=32 * eps)


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e4, 1e6])
def test_projection_of_ill_conditioned_matrices(condition, device):
    V, W = (group.random(3, 100, seed=seed).to(device) for seed in (1, 2))
    M = V * torch.tensor([1.0, condition**-0.5, 1 / condition], dtype=torch.complex128, device=device) @ W
    # the least cofactor p_2 p_3 has the rounding of the largest one, p_1^2
    assert_close(group.project(M), V @ W, rtol=0, atol=1e-15 * condition**1.5 + 1e-14)


@pytest.mark.parametrize("n", [2, 3])
def test_gradient_of_gram_schmidt(n):
    M = matrices(3, n).requires_grad_()
    function = lambda M: group.project(M, "gram-schmidt")  # noqa: E731
    assert torch.autograd.gradcheck(function, M, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, M, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
def test_storage(n, device, dtype):
    U = group.random(n, (4, 5), seed=1, dtype=dtype).to(device)
    rows = group.compress(U)
    assert rows.shape == (4, 5, n - 1, n)
    assert rows.is_contiguous()
    assert_close(group.expand(rows), U, rtol=0, atol=4 * torch.finfo(dtype).eps)
    rows = rows.to(torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(group.expand, rows[:1, :2], atol=1e-8, rtol=1e-6)


def test_haar_density_is_normalised():
    """Over the alcove of SU(3), in th_1 and th_2, by Gauss' rule in s_1 and s_2 / (1 - s_1)."""
    x, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(24))
    x, w = (x + 1) / 2, w / 2
    a, b = torch.meshgrid(x, x, indexing="ij")
    s = torch.stack([a, (1 - a) * b], -1)
    first = -2 * math.pi / 3 * (2 * s[..., 0] + s[..., 1])
    phases = torch.stack([first, first + 2 * math.pi * s[..., 0], -2 * first - 2 * math.pi * s[..., 0]], -1)
    # |d(th_1, th_2)/d(s_1, s_2)| = (2 pi)^2 / 3
    density = group.haar_log_density(phases).exp() * (1 - a) * (2 * math.pi) ** 2 / 3
    assert (density * w[:, None] * w).sum().item() == pytest.approx((2 * math.pi) ** 2, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_random_elements_have_the_characters_of_the_haar_measure(n, device):
    """<tr U> = 0 and <|tr U|^2> = 1, four standard deviations."""
    trace = group.random(n, 40_000, seed=5).to(device).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(trace.mean()) < 4 * trace.std() / 200
    assert abs(trace.abs().square().mean() - 1) < 4 * trace.abs().square().std() / 200


@pytest.mark.parametrize("name", ["exp", "log", "project", "eig", "eigh"])
@pytest.mark.parametrize("n", [2, 3])
def test_nan_stays_in_its_matrix(name, n, device):
    U = group.random(n, 20, seed=1).to(device)
    U[3, 0, 1] = torch.nan
    out = getattr(group, name)(U)
    clean = torch.arange(20, device=device) != 3
    for part in out if isinstance(out, tuple) else (out,):
        bad = part.isnan().flatten(1).any(1)
        assert bad.equal(~clean)


@pytest.mark.parametrize("name", ["exp", "log", "project", "eig", "eigh", "compress"])
def test_refuses(name):
    function = getattr(group, name)
    for shape in ((3,), (2, 3), (1, 1)):
        with pytest.raises(ValueError, match=rf"{name}: . must have shape \(..., N, N\)"):
            function(torch.zeros(shape, dtype=torch.complex128))
    with pytest.raises(TypeError, match=rf"{name}: . must be complex64 or complex128, got torch.float64"):
        function(torch.zeros(3, 3, dtype=torch.float64))


def test_refuses_another_method():
    with pytest.raises(ValueError, match="project: method must be 'polar' or 'gram-schmidt', got 'nearest'"):
        group.project(torch.eye(3, dtype=torch.complex128), "nearest")


@pytest.mark.parametrize("n", [2, 3])
def test_chain_is_numpys_product(n):
    A, B, C = (group.random(n, 5, seed=seed) for seed in (1, 2, 3))
    wanted = np.stack([a @ b @ c.conj().T for a, b, c in zip(A.numpy(), B.numpy(), C.numpy(), strict=True)])
    assert_close(group.chain(A, B, group.adjoint(C)), torch.from_numpy(wanted), rtol=0, atol=1e-14)
    assert_close(group.chain(A, group.adjoint(A)), torch.eye(n, dtype=A.dtype).expand_as(A), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="chain: factors must"):
        group.chain(A, torch.eye(4, dtype=A.dtype))
