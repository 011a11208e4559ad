"""The GPU's tiles against sums in float64: every dtype, odd channels, splits, groups, both directions, long lists.

Without a GPU the same texts run on the host, thread by thread: tests/sparse/test_convolve_block.cpp.
"""

import functools

import pytest
import torch
from conftest import needs_gpu
from core.contract import assert_same_bits
from hepops.sparse import convolve, linear, weight_gradient

from sparse import plain

pytestmark = needs_gpu

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
KINDS = [*DTYPES, "tf32"]


@functools.cache
def random_map(num_in, num_out, volume, every, index=torch.int32):
    """Any row under any offset for one in `every` of the rows written; none of every fourth tile."""
    at = torch.Generator().manual_seed(num_in + num_out)
    k, o = (torch.rand(volume, num_out, generator=at) < 1 / every).nonzero().unbind(1)
    i = torch.randint(num_in, k.shape, generator=at)
    triples = [t for t in zip(i.tolist(), o.tolist(), k.tolist(), strict=True) if t[1] // 64 % 4 != 3]
    return plain.plain_map(triples, num_in, num_out, volume, index=index, device="cuda")


@pytest.fixture(params=KINDS)
def kind(request):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = request.param == "tf32"
    yield request.param
    torch.backends.cuda.matmul.allow_tf32 = before


def sample(kernel_map, channels, kind, transposed=False, groups=1):
    """x, weight and a gradient, as they are stored and as float64."""
    dtype = DTYPES.get(kind, torch.float32)
    read, written = channels
    shape = (written // groups, read) if transposed else (read // groups, written)
    x, w = torch.randn(kernel_map.num_in, read), torch.randn(kernel_map.volume, *shape)
    stored = [a.to("cuda", dtype) for a in (x, w, torch.randn(kernel_map.num_out, written))]
    return stored, [a.double() for a in stored]


def assert_rounded(ours, law, args, kind):
    """Within the rounding of the products, which grow with the sum of their sizes, and of the result."""
    product = {"tf32": 2**-10, "f64": 2**-46}.get(kind, 2**-18)  # the halves multiply exactly, and add in float32
    stored = torch.finfo(ours.dtype).eps
    exact, size = law(*args), law(*[a.abs() for a in args])
    error = (ours.double() - exact).abs() - product * size - stored * exact.abs()
    assert torch.isfinite(ours).all()
    assert error.max() <= 0 if error.numel() else True


def check(kernel_map, channels, kind, flip=False, transposed=False, groups=1):
    options = {"flip": flip, "transposed": transposed, "groups": groups}
    (x, w, g), (xx, ww, gg) = sample(kernel_map, channels, kind, transposed, groups)
    y = convolve(x, w, kernel_map, **options)
    assert y.dtype == x.dtype
    assert_rounded(y, lambda a, b: plain.convolve(a, b, kernel_map, **options), (xx, ww), kind)
    gw = weight_gradient(x, g, kernel_map, **options)
    assert_rounded(gw, lambda a, b: plain.weight_gradient(a, b, kernel_map, **options), (xx, gg), kind)


# compute-sanitizer runs what has this name
@pytest.mark.parametrize("channels", [(1, 32), (3, 5), (32, 32), (40, 160)], ids=lambda c: f"{c[0]}to{c[1]}")
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients_of_tiles(kind, channels, transposed):
    for num_out, volume in ((1, 3), (63, 27), (200, 8)):
        check(random_map(77, num_out, volume, 2), channels, kind, transposed=transposed)


@pytest.mark.parametrize("channels", [(64, 64), (96, 160), (5, 33), (128, 96)], ids=lambda c: f"{c[0]}to{c[1]}")
def test_channels(kind, channels):
    check(random_map(300, 500, 27, 2), channels, kind)
    check(random_map(300, 500, 27, 2), channels, kind, flip=True, transposed=True)


@pytest.mark.parametrize("rows", [1, 64, 65, 1000, 9000, 20_000])
def test_rows_and_splits(kind, rows):
    check(random_map(rows, rows, 27, 3), (32, 64), kind)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(kind, groups):
    for transposed in (False, True):
        check(random_map(300, 500, 9, 2), (64, 48), kind, transposed=transposed, groups=groups)


def test_long_indices(kind):
    check(random_map(300, 500, 27, 2, torch.int64), (32, 40), kind)


def test_large_kernels(kind):
    """More offsets than one pass over all tiles is worth: the weight gradient goes through sorted entries."""
    check(random_map(200, 400, 4096, 300), (16, 40), kind)


def test_no_pairs(kind):
    kernel_map = random_map(20, 130, 8, 10**9)
    (x, w, g), _ = sample(kernel_map, (32, 16), kind)
    bias = torch.randn(16, device="cuda", dtype=x.dtype)
    assert_same_bits(convolve(x, w, kernel_map, bias), bias.expand(130, 16))
    assert_same_bits(
        weight_gradient(x, g, kernel_map),
        torch.zeros_like(w, dtype=g.to(torch.float32).dtype).to(torch.float64 if kind == "f64" else torch.float32),
    )


def test_rows_that_are_not_finite_stay_where_they_are(kind):
    kernel_map = random_map(300, 500, 27, 2)
    (x, w, _), _ = sample(kernel_map, (33, 40), kind)
    x[17] = float("nan")
    touched = {o for i, o, _ in kernel_map.triples if i == 17}
    assert set(convolve(x, w, kernel_map).isnan().any(1).nonzero().flatten().tolist()) == touched


@pytest.mark.parametrize("rows", [500, 20_000])
def test_epilogue(kind, rows):
    kernel_map = random_map(rows, rows, 27, 3)
    (x, w, residual), _ = sample(kernel_map, (32, 48), kind)
    wide = torch.float64 if kind == "f64" else torch.float32
    bias, scale, shift = torch.randn(3, 48, device="cuda", dtype=wide)
    raw, activated, moments = torch.ops.hepops._sparse_convolve_fused(
        x, w, *kernel_map.forward, False, False, 1, bias, residual, scale, shift, 0.33, 3, True, kind == "tf32"
    )
    plain_y = convolve(x, w, kernel_map).double()
    exact = plain_y + bias.double() + residual.double()
    near = {"rtol": 4 * torch.finfo(x.dtype).eps, "atol": 16 * torch.finfo(x.dtype).eps}
    torch.testing.assert_close(raw.double(), exact, **near)
    z = exact * scale.double() + shift.double()
    torch.testing.assert_close(
        activated.double(), torch.where(z > 0, z, 0.33 * z), rtol=near["rtol"], atol=4 * near["atol"]
    )
    schedule = kernel_map.forward[3].long()
    for t, places in enumerate(schedule.split(64)):
        v = raw[places].double()
        torch.testing.assert_close(moments[t, 0], v.mean(0), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(moments[t, 1], v.var(0, correction=0) * len(places), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_float32_weights_are_rounded_to_halves(half):
    kernel_map = random_map(300, 500, 27, 2)
    x, w = torch.randn(300, 32, device="cuda", dtype=half), torch.randn(27, 32, 40, device="cuda")
    assert_same_bits(convolve(x, w, kernel_map), convolve(x, w.to(half), kernel_map))


def test_tf32_is_not_used_unasked():
    kernel_map = random_map(300, 500, 27, 2)
    (x, w, _), (xx, ww, _) = sample(kernel_map, (32, 40), "f32")
    error = (convolve(x, w, kernel_map).double() - plain.convolve(xx, ww, kernel_map)).abs().max()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        rounded = (convolve(x, w, kernel_map).double() - plain.convolve(xx, ww, kernel_map)).abs().max()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert error < rounded / 50  # 24 bits against 11


@pytest.mark.parametrize("rows", [500, 20_000])
def test_twenty_runs_have_the_same_bits(kind, rows):
    kernel_map = random_map(rows, rows, 27, 3)
    (x, w, g), _ = sample(kernel_map, (32, 64), kind)
    first = convolve(x, w, kernel_map), weight_gradient(x, g, kernel_map)
    for _ in range(20):
        assert_same_bits((convolve(x, w, kernel_map), weight_gradient(x, g, kernel_map)), first)


@pytest.mark.parametrize("rows", [500, 20_000])
def test_runs_in_a_cuda_graph(kind, rows):
    """Nothing waits for the host, and what is captured computes anew from what then stands in its inputs."""
    kernel_map = random_map(rows, rows, 27, 3)
    (x, w, g), _ = sample(kernel_map, (32, 64), kind)

    def run():
        return convolve(x, w, kernel_map), weight_gradient(x, g, kernel_map)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert_same_bits(captured, run())


@pytest.mark.parametrize("rows", [1, 64, 1000, 20_000])
def test_values_and_gradients_of_linear_layers(kind, rows):
    dtype = DTYPES.get(kind, torch.float32)
    x, w, g = (torch.randn(shape).to("cuda", dtype) for shape in ((rows, 40), (40, 33), (rows, 33)))
    x.requires_grad_(), w.requires_grad_()
    y = linear(x, w)
    gx, gw = torch.autograd.grad(y, (x, w), g)
    kind = "f32" if kind == "tf32" else kind  # always true float32
    xx, ww, gg = (a.detach().double() for a in (x, w, g))
    assert_rounded(y.detach(), lambda a, b: a @ b, (xx, ww), kind)
    assert_rounded(gx, lambda a, b: a @ b.T, (gg, ww), kind)
    assert_rounded(gw, lambda a, b: a.T @ b, (xx, gg), kind)
