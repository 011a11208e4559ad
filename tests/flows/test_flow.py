"""Flows as distributions: densities, samples, conditions, and what is refused."""

import math

import pytest
import torch
from hepops import flows
from hepops.flows import Coupling, Flow, Normal, Spline
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, vmap
from torch.testing import assert_close

from .stock import FLOWS, C, flow

every = pytest.mark.parametrize("name", FLOWS)


def data(q, *batch, dtype=torch.float64, device="cpu"):
    x = torch.rand(*batch, *q.event_shape, dtype=torch.float64).to(device, dtype)
    c = torch.randn(*batch, C, dtype=torch.float64).to(device, dtype) if q.context_size else None
    return x, c


@every
def test_samples_have_their_log_density(name, device, dtype):
    q = flow(name, dtype, device, scale=0.1)
    c = data(q, 50, dtype=dtype, device=device)[1]
    shape = 50 if c is None else ()
    x, log_q = q.sample_and_log_prob(shape, c, seed=3)
    assert x.shape == (50, *q.event_shape) and x.dtype == dtype and log_q.dtype == torch.float64
    assert not x.requires_grad and not log_q.requires_grad
    at = {"rtol": 0, "atol": 1e-9 if dtype == torch.float64 else 5e-3}
    assert_close(q.log_prob(x, c), log_q, **at)
    assert_close(q.sample(shape, c, seed=3), x, rtol=0, atol=0)
    differentiable, _ = q.rsample_and_log_prob(shape, c, seed=3)
    assert_close(differentiable, x)
    assert differentiable.requires_grad and q.rsample(shape, c, seed=3).requires_grad


@pytest.mark.parametrize("name", ["nsf one feature", "circle", "nsf", "circular"])
def test_density_is_normalised(name):
    q = flow(name, scale=0.2)
    D = q.event_shape[0]
    half = math.pi if "circ" in name else 7.0
    n = 20_001 if D == 1 else 41
    axis = (torch.arange(n).double() + 0.5) / n * 2 * half - half
    if D == 1:
        total = q.log_prob(axis[:, None]).exp().mean() * 2 * half
        assert abs(total - 1) < 1e-5
        return
    x = half * (2 * torch.rand(400_000, D, dtype=torch.float64) - 1)
    if "circ" not in name:  # from a wide normal, not from a box
        x = torch.randn(400_000, D, dtype=torch.float64) * 1.6
        log_p = (-0.5 * (x / 1.6).square() - math.log(1.6) - 0.5 * math.log(2 * math.pi)).sum(1)
    else:
        log_p = torch.full((), -D * math.log(2 * half)).double()
    with torch.no_grad():
        w = (q.log_prob(x) - log_p).exp()
    sigma = w.std() / len(w) ** 0.5
    assert sigma < 0.1 and abs(w.mean() - 1) < 5 * sigma


@every
def test_log_prob_has_the_derivatives_of_finite_differences(name):
    q = flow(name, scale=0.1)
    x, c = data(q, 2)
    names, weights = zip(*((n, p.detach().requires_grad_()) for n, p in q.named_parameters()), strict=True)

    def log_prob(x, c, *weights):
        return functional_call(q, dict(zip(names, weights, strict=True)), (x, c))

    q.forward = q.log_prob
    c = c if c is None else c.requires_grad_()
    assert gradcheck(log_prob, (x.requires_grad_(), c, *weights), atol=1e-8, rtol=1e-6, fast_mode=True)
    assert gradcheck(lambda x: q.log_prob(x, c), x, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", ["realnvp", "nsf", "nsf context"])
def test_second_derivatives_of_log_prob(name):
    q = flow(name, scale=0.1)
    x, c = data(q, 2)
    assert gradgradcheck(lambda x: q.log_prob(x, c), x.requires_grad_(), atol=1e-8, rtol=1e-6)


@every
def test_a_ready_flow_begins_at_its_base(name):
    q = FLOWS[name]().double()
    if "mixing" not in name:
        x, c = data(q, 5)
        y, logdet = q.transform(x, c)
        assert logdet.abs().max() < 1e-6  # LU begins at |det| = 1 in float32
        assert_close(y.sort(-1).values, x.sort(-1).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("context", [False, True])
def test_a_condition_is_a_torch_distribution(context):
    q = flow("nsf context" if context else "nsf")
    c = torch.randn(3, C).double() if context else None
    p = q.condition(c)
    batch = (3,) if context else ()
    assert isinstance(p, torch.distributions.Distribution)
    assert p.batch_shape == batch and p.event_shape == (4,) and p.has_rsample
    x = p.sample((5, 2), seed=1)
    assert x.shape == (5, 2, *batch, 4)
    assert_close(p.log_prob(x), q.log_prob(x, c), rtol=0, atol=0)
    assert p.log_prob(x).shape == (5, 2, *batch) and p.log_prob(x[0, 0]).shape == batch
    assert p.sample().shape == (*batch, 4) and p.rsample((2,)).requires_grad
    draws, log_q = p.sample_and_log_prob((6,), seed=2)
    assert_close(p.log_prob(draws), log_q, rtol=0, atol=1e-8)
    assert p.rsample_and_log_prob((6,), seed=2)[1].requires_grad
    assert bool(p.support.check(x).all())
    if context:
        wide = p.expand((2, 3))
        assert wide.batch_shape == (2, 3) and wide.log_prob(torch.zeros(4).double()).shape == (2, 3)
    else:
        with pytest.raises(ValueError, match="batch shape is"):
            p.expand((2,))


def test_a_vector_meets_many_contexts():
    q = flow("nsf context")
    c, x = torch.randn(6, C).double(), torch.rand(4).double()
    many = q.log_prob(x, c)
    assert many.shape == (6,)
    assert_close(many[2], q.log_prob(x, c[2]), rtol=0, atol=1e-12)
    x = torch.rand(5, 1, 4).double()
    assert q.log_prob(x, c).shape == (5, 6)
    with pytest.raises(ValueError, match=r"batches of x and context must broadcast, got x of \(5, 4\) and context"):
        q.log_prob(torch.rand(5, 4).double(), c)


@pytest.mark.parametrize("name", ["nsf", "maf", "circular"])
def test_samples_have_names(name):
    q = flow(name)
    whole = q.sample(20, seed=9)
    parts = torch.cat([q.sample(12, seed=9), q.sample(8, seed=9, first=12)])
    assert_close(parts, whole, rtol=0, atol=1e-13)
    assert not torch.equal(q.sample(20, seed=9, step=1), whole)
    torch.manual_seed(4)
    a = q.sample(3)
    assert not torch.equal(q.sample(3), a)
    torch.manual_seed(4)
    assert torch.equal(q.sample(3), a)


def test_bad_values_are_counted_and_shown():
    q = flow("nsf context")
    x, c = data(q, 5)
    x[1, 2], x[3, 0] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"x must be finite, got 2 of 20 that are not, the first nan at \(1, 2\)"):
        q.log_prob(x, c)
    c[0, 1] = -math.inf
    with pytest.raises(ValueError, match=r"context must be finite, got 1 of 15 that are not, the first -inf at"):
        q.sample((), c)
    with pytest.raises(ValueError, match="context must be finite"):
        q.condition(c)
    q.validate = False
    assert q.log_prob(x, c).isnan().any()


def test_values_too_large_to_be_added_are_not_refused():
    q = flow("nsf", torch.float32)
    assert q.log_prob(torch.full((2, 4), 3e38)).isinf().all()


def test_values_outside_a_bounded_domain_are_refused():
    spline = Spline(4, tails=None)
    layers = [flows.Permutation([1, 0]), *(Coupling([i == 0, i == 1], spline, hidden=(8,)) for i in (0, 1))]
    q = Flow(flows.Compose(layers), flows.Uniform(2))
    assert q.transform.domain == (0.0, 1.0) and q.transform.inv.domain == (0.0, 1.0)
    assert q.log_prob(torch.tensor([[0.0, 1.0]])).isfinite().all()
    with pytest.raises(
        ValueError, match=r"x must be inside \[0, 1\], got 1 of 4 that are not, the first 1.5 at \(1, 0\)"
    ):
        q.log_prob(torch.tensor([[0.5, 0.5], [1.5, 0.5]]))
    assert not q.condition().support.check(torch.tensor([0.5, 1.5]))
    assert flows.Compose([flows.LULinear(2), *layers]).domain is None


def test_shapes_and_dtypes_are_refused_by_name():
    q, plain = flow("nsf context"), flow("nsf")
    x, c = data(q, 5)
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 4\), got \(5, 3\)"):
        q.log_prob(x[:, :3], c)
    with pytest.raises(TypeError, match=r"x must be torch\.float64, as the flow is, got torch\.float32"):
        q.log_prob(x.float(), c)
    for call in (lambda c: q.log_prob(x, c), lambda c: q.sample((), c), q.condition):
        with pytest.raises(ValueError, match=r"context must have shape \(\*batch, 3\), got \(5, 2\)"):
            call(c[:, :2])
        with pytest.raises(ValueError, match=r"context must have shape \(\*batch, 3\), got None"):
            call(None)
    with pytest.raises(ValueError, match=r"this flow has no context, got one of shape \(5, 3\)"):
        plain.log_prob(x, c)
    with pytest.raises(ValueError, match=r"transform is of events \(4,\), base of \(3,\)"):
        Flow(plain.transform, Normal(3))


@pytest.mark.parametrize("name", ["nsf", "maf", "nsf context", "circular"])
def test_vmap_of_log_prob(name):
    q = flow(name)
    x, c = data(q, 6)
    ours = vmap(q.log_prob, (0, None if c is None else 0))(x, c)
    assert_close(ours, q.log_prob(x, c), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["nsf", "maf", "nsf context", "circular", "realnvp"])
def test_gradients_of_every_event(name):
    """torch.func: the score of each event, its gradient in each weight, and the Hessian of one."""
    q = flow(name)
    x, c = data(q, 6)
    alone = lambda x, c: q.log_prob(x, c)  # noqa: E731
    over = (0, None if c is None else 0)
    leaf = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(q.log_prob(leaf, c).sum(), leaf, create_graph=True)
    assert_close(vmap(grad(alone), over)(x, c), score.detach(), rtol=1e-9, atol=1e-9)
    rows = [torch.autograd.grad(s, leaf, retain_graph=True)[0][0] for s in score[0]]
    first = None if c is None else c[0]
    assert_close(hessian(lambda x: q.log_prob(x, first))(x[0]), torch.stack(rows), rtol=1e-8, atol=1e-8)
    weights = {f"q.{k}": p.detach() for k, p in q.named_parameters()}
    module = LogProb(q)
    each = vmap(grad(lambda w, x, c: functional_call(module, w, (x, c))), (None, *over))(weights, x, c)
    total = torch.autograd.grad(q.log_prob(x, c).sum(), list(q.parameters()), allow_unused=True)
    for ours, theirs in zip(each.values(), total, strict=True):
        assert_close(ours.sum(0), torch.zeros_like(ours[0]) if theirs is None else theirs, rtol=1e-8, atol=1e-8)


class LogProb(torch.nn.Module):
    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, x, c):
        return self.q.log_prob(x, c)


def training_step(q, optimizer, x, c):
    loss = -q.log_prob(x, c).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


@pytest.mark.parametrize("name", ["nsf context", "maf", "circular context", "realnvp"])
def test_compiled_whole(name, device, dtype=torch.float64):
    """log_prob and its backward in one graph each, then three steps of Adam that end where the plain ones do."""
    torch._dynamo.reset()
    compiled, plain = flow(name, dtype, device, scale=0.1), flow(name, dtype, device, scale=0.1)
    x, c = data(plain, 64, dtype=dtype, device=device)
    log_prob = torch.compile(compiled.log_prob, fullgraph=True, backend="aot_eager")
    losses = []
    for q, function in ((compiled, log_prob), (plain, plain.log_prob)):
        optimizer = torch.optim.Adam(q.parameters(), 1e-3)
        for _ in range(3):
            loss = -function(x, c).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss)
    at = {"rtol": 1e-8, "atol": 1e-8}
    assert_close(losses[0], losses[1], **at)
    assert_close(list(compiled.parameters()), list(plain.parameters()), **at)


@pytest.mark.parametrize("name", ["nsf context", "maf", "circular", "realnvp", "nsf residual lu"])
def test_autocast_rounds_the_networks_alone(name, device):
    q = flow(name, torch.float32, device, scale=0.05)
    x, c = data(q, 200, dtype=torch.float32, device=device)
    exact = q.log_prob(x, c)
    with torch.autocast(device, torch.bfloat16):
        z, logdet = q.transform(x, c)
        rounded = q.log_prob(x, c)
    assert z.dtype == torch.float32 and logdet.dtype == rounded.dtype == torch.float64
    assert 0 < (rounded - exact).abs().mean() < 0.02  # 2^-9 of each of some parameters
    (-rounded.mean()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in q.parameters())
    with torch.autocast(device, torch.bfloat16):
        back = q.transform.inverse(z, c)[0]
    assert (back - x).abs().max() < 1e-2  # the same rounded networks: b has its bits or nearly so


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["nsf context", "maf", "nsf residual lu", "circular"])
def test_cuda_graph(name):
    """A captured training step: nothing in it waits for the host."""
    q, plain = (flow(name, torch.float32, "cuda", scale=0.1) for _ in range(2))
    x, c = data(q, 256, dtype=torch.float32, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer = torch.optim.Adam(q.parameters(), 1e-3, capturable=True)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                training_step(q, optimizer, x, c)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = training_step(q, optimizer, x, c)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    optimizer = torch.optim.Adam(plain.parameters(), 1e-3, capturable=True)
    for _ in range(3):
        expected = training_step(plain, optimizer, x, c)
    assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_a_density_is_learned():
    """Two moons-like arcs: a flow beats the best normal distribution by far."""
    generator = torch.Generator().manual_seed(2)
    t = torch.rand(2000, generator=generator) * math.pi
    x = torch.stack([2 * t.cos(), 2 * t.sin() - 1], -1) + 0.1 * torch.randn(2000, 2, generator=generator)
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    torch.manual_seed(0)
    q = flows.nsf(2, layers=4, hidden=(32, 32))
    optimizer = torch.optim.Adam(q.parameters(), 5e-3)
    for _ in range(150):
        loss = training_step(q, optimizer, x, None)
    assert loss < -normal.log_prob(x).mean() - 0.8


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"mixing must be None or one of reverse.*got 'stir'"):
        flows.nsf(2, mixing="stir")
    with pytest.raises(ValueError, match="features and layers must be at least 1, got 0 and 4"):
        flows.nsf(0)
    with pytest.raises(ValueError, match="hidden must hold one width"):
        flows.nsf(2, residual=True, hidden=(8, 9))
    with pytest.raises(ValueError, match="residual networks are for couplings"):
        flows.maf(2, residual=True)
    with pytest.raises(ValueError, match="circular_nsf: mixing must be"):
        flows.circular_nsf(2, mixing="lu")
    with pytest.raises(ValueError, match="mask changes none of 2"):
        Coupling([False, False], Spline())
    with pytest.raises(ValueError, match="leaves nothing to condition on"):
        Coupling([True, True], Spline())
    with pytest.raises(ValueError, match="takes 23 parameters a feature, the network gives 2"):
        flows.Autoregressive(Spline(), flows.MADE(2, 2))
    with pytest.raises(ValueError, match="features must be given"):
        flows.Autoregressive(Spline(), torch.nn.Identity())


def test_ready_flows_refuse_options_that_there_are_not():
    for make in (flows.nsf, flows.maf, flows.circular_nsf):
        with pytest.raises(TypeError, match=r"options are hidden, .*, got hiden"):
            make(2, hiden=(8,))
    with pytest.raises(ValueError, match="nsf: mixing must be None or one of"):
        flows.nsf(2, layers=1, mixing="shuffle")


def test_a_network_of_another_width_is_refused():
    with pytest.raises(ValueError, match="its last layer must give 2 numbers"):
        flows.Coupling([True, False], flows.Affine(), flows.MLP(1, 3))
    layer = flows.Coupling([True, False], flows.Affine(), Wide())
    with pytest.raises(ValueError, match=r"Coupling: network must give 1 x 2 numbers, got shape \(5, 3\)"):
        layer(torch.zeros(5, 2))


class Wide(torch.nn.Module):
    def forward(self, x, context=None):
        return x.new_zeros(*x.shape[:-1], 3)


def test_layers_of_a_network_may_be_replaced():
    network = flows.MLP(2, 3, hidden=(4,))
    network.layers[2] = torch.nn.Linear(4, 5)
    assert network(torch.zeros(1, 2)).shape == (1, 5)


def test_refuses_a_context_of_a_wider_dtype():
    q = flows.nsf(2, 3, layers=1, hidden=(4,))
    with pytest.raises(TypeError, match=r"context must be torch\.float32, as the flow is, or narrower"):
        q.log_prob(torch.zeros(5, 2), torch.zeros(5, 3, dtype=torch.float64))
    assert q.sample((), torch.ones(5, 3, dtype=torch.int64), seed=1).shape == (5, 2)
