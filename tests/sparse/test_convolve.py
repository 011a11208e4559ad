import itertools
from pathlib import Path

import numpy
import pytest
import torch
import torch._dynamo.testing
from core.contract import Contract, assert_same_bits
from hepops.sparse import convolve
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck
from torch.testing import assert_close

from sparse import plain


class TestConvolve(Contract):
    op = torch.ops.hepops.sparse_convolve.default
    public = staticmethod(convolve)
    sizes = (0, 1, 15, 60)
    large = 20_000
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"must be float16, bfloat16, float32 or float64"

    @staticmethod
    def function(x, weight, bias, *rest):
        return convolve(x, weight, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]), bias)

    @staticmethod
    def reference(x, weight, bias, *rest):
        return plain.convolve(x, weight, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]), bias)

    @staticmethod
    def sample(size, **at):
        """A submanifold layer, 2 channels to 3."""
        m = plain.submanifold(size, device=at["device"])
        return (
            torch.randn(size, 2, **at),
            torch.randn(27, 2, 3, **at) / 5,
            torch.randn(3, **at),
            *m.forward,
            *m.backward,
            plain.triples_tensor(m, at["device"]),
        )

    def operands(self, args):
        return *args[:11], False, True, False, 1

    @staticmethod
    def rounding(dtype):
        # sums of 60 products of order 1, and gradients that sum over 60 rows
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 256 * torch.finfo(dtype).eps}


MAPS = {
    "submanifold": lambda **k: plain.submanifold(300, **k),
    "even": lambda **k: plain.submanifold(120, size=2, **k),
    "strided": lambda **k: plain.strided(300, **k),
    "upward": lambda **k: plain.strided(300, **k).transposed(),
    "two dimensions": lambda **k: plain.submanifold(700, size=5, dimension=2, **k),
    "one offset": lambda **k: plain.submanifold(300, size=1, **k),
}


def shape_of(volume, read, written, transposed, groups):
    return (volume, written // groups, read) if transposed else (volume, read // groups, written)


def sample(kernel_map, read, written, transposed, groups, **at):
    x = torch.randn(kernel_map.num_in, read, **at)
    weight = torch.randn(shape_of(kernel_map.volume, read, written, transposed, groups), **at)
    return x, weight / (4 * read / groups) ** 0.5, torch.randn(written, **at)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", MAPS)
def test_is_the_sum_over_the_triples(name, index, device, dtype):
    kernel_map = MAPS[name](device=device, index=index)
    for flip, transposed, groups in itertools.product((False, True), (False, True), (1, 2)):
        x, weight, bias = sample(kernel_map, 6, 10, transposed, groups, device=device, dtype=dtype)
        y = convolve(x, weight, kernel_map, bias, flip=flip, transposed=transposed, groups=groups)
        exact = plain.convolve(x.double(), weight.double(), kernel_map, bias.double(), flip, transposed, groups)
        assert_close(y, exact.to(dtype), rtol=0, atol=32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["even", "strided", "upward"])
@pytest.mark.parametrize("transposed", [False, True])
def test_closes_under_differentiation(name, transposed, device):
    size = {"even": plain.submanifold(12, size=2, device=device), "strided": plain.strided(20, device=device)}
    size["upward"] = size["strided"].transposed()
    kernel_map = size[name]
    args = sample(kernel_map, 4, 2, transposed, 2, device=device, dtype=torch.float64)
    args = [a.requires_grad_() for a in args]

    def function(x, weight, bias):
        return convolve(x, weight, kernel_map, bias, flip=True, transposed=transposed, groups=2)

    assert gradcheck(function, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


def test_refuses_what_does_not_match(device):
    m = plain.submanifold(20, device=device)
    x, w = torch.rand(20, 2, device=device), torch.rand(27, 2, 3, device=device)
    with pytest.raises(ValueError, match=r"x has 3 channels, a weight of shape \(27, 2, 3\) reads 2"):
        convolve(torch.rand(20, 3, device=device), w, m)
    with pytest.raises(ValueError, match=r"x has 2 channels, a weight of shape \(27, 2, 3\), transposed, reads 3"):
        convolve(x, w, m, transposed=True)
    with pytest.raises(ValueError, match="x has 21 rows, the kernel map reads 20"):
        convolve(torch.rand(21, 2, device=device), w, m)
    with pytest.raises(ValueError, match="weight has 8 offsets, the kernel map 27"):
        convolve(x, w[:8], m)
    with pytest.raises(TypeError, match="weight has dtype Double where x has Float"):
        convolve(x, w.double(), m)
    with pytest.raises(TypeError, match="bias has dtype Double, expected Float"):
        convolve(x, w, m, torch.rand(3, device=device).double())
    with pytest.raises(ValueError, match=r"bias has shape \(2\), expected \(3\)"):
        convolve(x, w, m, torch.rand(2, device=device))
    with pytest.raises(ValueError, match=r"2 groups do not divide a weight of shape \(27, 2, 3\)"):
        convolve(x, w, m, groups=2)
    with pytest.raises(ValueError, match=r"weight must be \(K, A, B\), got shape \(27, 6\)"):
        convolve(x, w.flatten(1), m)
    with pytest.raises(ValueError, match=r"x must be \(N, C\), got shape \(20\)"):
        convolve(x[:, 0], w, m)
    lists = m.forward
    with pytest.raises(ValueError, match=r"tiles has shape \(\d+\), which does not suit a schedule of \(1000\)"):
        far = torch.zeros(1000, dtype=torch.int32, device=device)
        convolve(x, w, m._replace(forward=(*lists[:3], far), mirrored=False))
    with pytest.raises(TypeError, match="the kernel map must be all int32 or all int64"):
        convolve(x, w, m._replace(forward=(*lists[:3], lists[3].long())))


def test_nan_spreads_no_further_than_its_neighbours(device, dtype):
    m = plain.submanifold(300, device=device)
    x, w, _ = sample(m, 5, 7, False, 1, device=device, dtype=dtype)
    x[17, 2] = float("nan")
    touched = {o for i, o, k in m.triples if i == 17}
    y = convolve(x, w, m)
    assert set(y.isnan().any(1).nonzero().flatten().tolist()) == touched
    assert y.isnan().all(1).sum() == len(touched)


def test_rows_without_pairs_are_the_bias(device, dtype):
    kernel_map = plain.plain_map([], 5, 300, 27, device=device)
    bias = torch.randn(3, device=device, dtype=dtype)
    y = convolve(
        torch.rand(5, 2, device=device, dtype=dtype), torch.rand(27, 2, 3, device=device, dtype=dtype), kernel_map, bias
    )
    assert_same_bits(y, bias.expand(300, 3))


HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])


@HALVES
@pytest.mark.parametrize("channels", [(6, 10), (5, 3), (32, 64), (64, 40)])
@pytest.mark.parametrize("transposed", [False, True])
def test_halves_add_in_single(transposed, channels, half, device):
    kernel_map = plain.strided(300, device=device)
    x, weight, bias = sample(kernel_map, *channels, transposed, 1, device=device)
    x, weight = x.to(half).requires_grad_(), weight.to(half).requires_grad_()
    y = convolve(x, weight, kernel_map, bias, transposed=transposed)
    exact = plain.convolve(x.double(), weight.double(), kernel_map, bias.double(), transposed=transposed)
    # rounded once; what is next to 0 has lost bits of the float32 sum
    assert_close(y, exact.to(half), rtol=torch.finfo(half).eps, atol=1e-5)
    seed = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, weight), seed)
    theirs = torch.autograd.grad(exact, (x, weight), seed.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == half
        assert_close(mine, other, rtol=torch.finfo(half).eps, atol=1e-4)


@HALVES
def test_halves_take_weights_in_single(half, device):
    kernel_map = plain.submanifold(300, device=device)
    x, weight, _ = sample(kernel_map, 6, 10, False, 1, device=device)
    x, weight = x.to(half), weight.requires_grad_()
    y = convolve(x, weight, kernel_map)
    exact = plain.convolve(x.double(), weight.double(), kernel_map)
    # the weights may be rounded to the dtype of the features, as autocast does: 27 x 6 products of order 1/5
    assert_close(y, exact.to(half), rtol=torch.finfo(half).eps, atol=4 * torch.finfo(half).eps)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), weight)
    assert gradient.dtype == torch.float32


@HALVES
def test_nan_and_infinity_survive_in_halves(half, device):
    kernel_map = plain.submanifold(100, size=1, device=device)
    x = torch.randn(100, 4, device=device).to(half)
    x[3, 0], x[5, 1] = float("nan"), float("inf")
    y = convolve(x, torch.eye(4, device=device).to(half)[None], kernel_map)
    assert y[3].isnan().all()
    assert y[5, 1] == float("inf")
    assert y[[0, 1, 2, 4]].isfinite().all()


def fused(x, weight, kernel_map, flip=False, transposed=False, groups=1, **epilogue):
    rest = [epilogue.get(name) for name in ("bias", "residual", "scale", "shift")]
    rest += [epilogue.get("slope", 1.0), epilogue.get("outputs", 3), epilogue.get("moments", False)]
    op = torch.ops.hepops._sparse_convolve_fused.default
    args = x, weight, *kernel_map.forward, flip, transposed, groups, *rest
    if epilogue.get("check"):
        opcheck(op, args)
    return op(*args)


def tile_moments(y, kernel_map):
    """Mean and sum of squared distances of each tile's rows."""
    rows = y.double()[kernel_map.forward[3].long()]
    tile = 64 if y.is_cuda else 256
    parts = [rows[first : first + tile] for first in range(0, len(rows), tile)]
    return torch.stack([torch.stack([p.mean(0), (p - p.mean(0)).square().sum(0)]) for p in parts])


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [5, 32, 70])
def test_what_follows_in_the_epilogue(channels, kind, device):
    kernel_map = plain.submanifold(700, device=device)
    x, weight, bias = sample(kernel_map, 6, channels, False, 1, device=device, dtype=torch.float64)
    x, weight = x.to(kind), weight.to(kind)
    wide = torch.promote_types(kind, torch.float32)
    bias, scale, shift = (torch.randn(channels, device=device, dtype=wide) for _ in range(3))
    residual = torch.randn(700, channels, device=device).to(kind)
    given = {"bias": bias, "residual": residual, "scale": scale, "shift": shift, "slope": 0.33}
    raw, activated, moments = fused(x, weight, kernel_map, **given, moments=True, check=True)
    v = plain.convolve(x.double(), weight.double(), kernel_map) + bias.double() + residual.double()
    eps = torch.finfo(kind).eps
    near = {"rtol": eps, "atol": 64 * torch.finfo(wide).eps}  # sums in `wide`, rounded once to `kind`
    assert_close(raw, v.to(kind), **near)
    z = v * scale.double() + shift.double()
    assert_close(activated, torch.where(z < 0, 0.33 * z, z).to(kind), **near | {"atol": 256 * torch.finfo(wide).eps})
    assert moments.dtype == torch.float64
    assert_close(moments[:-1], tile_moments(raw, kernel_map), rtol=1e-12, atol=1e-12)
    assert not moments[-1].any()
    # each output alone is the same to the last bit
    assert_same_bits(fused(x, weight, kernel_map, **given, outputs=1)[0], raw)
    assert_same_bits(fused(x, weight, kernel_map, **given, outputs=2)[1], activated)
    alone = fused(x, weight, kernel_map, bias=bias, outputs=1)
    assert_same_bits(alone[0], convolve(x, weight, kernel_map, bias))
    assert [out.shape for out in alone[1:]] == [(0,), (0,)]


def test_epilogue_in_groups_and_transposed(device, dtype):
    kernel_map = plain.strided(400, device=device)
    for transposed in (False, True):
        x, weight, bias = sample(kernel_map, 6, 10, transposed, 2, device=device, dtype=dtype)
        raw, activated, moments = fused(
            x, weight, kernel_map, True, transposed, 2, bias=bias, slope=0.0, moments=True, check=True
        )
        y = convolve(x, weight, kernel_map, bias, flip=True, transposed=transposed, groups=2)
        assert_same_bits(raw, y)
        assert_same_bits(activated, y.relu())
        assert_close(moments[:-1], tile_moments(y, kernel_map), rtol=1e-12, atol=1e-12)


def test_epilogue_refuses_what_does_not_match(device):
    m = plain.submanifold(20, device=device)
    x, w = torch.rand(20, 2, device=device), torch.rand(27, 2, 3, device=device)
    with pytest.raises(RuntimeError, match=r"residual has shape \(20, 2\), expected \(20, 3\)"):
        fused(x, w, m, residual=x)
    with pytest.raises(RuntimeError, match=r"scale has shape \(2\), expected \(3\)"):
        fused(x, w, m, scale=torch.rand(2, device=device))
    with pytest.raises(RuntimeError, match="outputs must be 0 to 3, got 4"):
        fused(x, w, m, outputs=4)
    with pytest.raises(RuntimeError, match="moments are those of raw, which is not asked for"):
        fused(x, w, m, outputs=2, moments=True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to say what memory is in use")
def test_offsets_that_are_not_used_cost_no_memory():
    """A convolution that pools: 48^3 offsets, 16 in use; weight and gradient would be 0.9 GB each."""
    volume, channels = 48**3, 32
    generator = torch.Generator().manual_seed(5)
    used = torch.randint(0, volume, (16,), generator=generator).tolist()
    triples = [(n, n // 16, used[n % 16]) for n in range(400)]
    kernel_map = plain.plain_map(triples, 400, 25, volume)
    weight = torch.from_numpy(numpy.zeros((volume, channels, channels), dtype=numpy.float32))
    for k in used:
        weight[k] = torch.randn(channels, channels)
    x = torch.randn(400, channels, requires_grad=True)
    before = resident()
    y = convolve(x, weight.requires_grad_(), kernel_map)
    seed = torch.randn_like(y)
    gradient, grad_x = torch.autograd.grad(y, (weight, x), seed)
    assert resident() - before < 64 << 20
    i, o, k = plain.index_of(kernel_map, x)
    exact = torch.zeros(25, channels).index_add(0, o, (x[i, None] @ weight[k])[:, 0])
    assert_close(y, exact, rtol=0, atol=1e-4)
    for number in set(used):
        at = k == number
        assert_close(gradient[number], x[i[at]].T @ seed[o[at]], rtol=0, atol=1e-4)
    assert gradient[used[0] - 1].count_nonzero() == 0
    assert grad_x.isfinite().all()


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_autocast_casts_the_features():
    kernel_map = plain.submanifold(60)
    x, weight, bias = (a.requires_grad_() for a in sample(kernel_map, 4, 6, False, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolve(x, weight, kernel_map, bias)
    assert y.dtype == torch.bfloat16
    assert [g.dtype for g in torch.autograd.grad(y.sum(), (x, weight, bias))] == [torch.float32] * 3


def test_compiles_whole_for_any_number_of_rows():
    """At most two compilations, the second for sizes that vary."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def step(x, weight, *lists):
        kernel_map = plain.PlainMap(lists, lists, True, 27, None, None, None)
        return convolve(x, weight, kernel_map).square().sum()

    weight = torch.randn(27, 3, 4)
    for number in (40, 50, 60, 70):
        m = plain.submanifold(number)
        x = torch.randn(number, 3)
        assert_close(step(x, weight, *m.forward), convolve(x, weight, m).square().sum())
    assert counter.frame_count <= 2
