"""What every transform promises, whichever it is."""

from copy import deepcopy

import pytest
import torch
from hepops import flows
from torch.autograd import gradcheck
from torch.func import functional_call, vmap
from torch.testing import assert_close

from .stock import TRANSFORMS, contexts, events, transform

every = pytest.mark.parametrize("name", TRANSFORMS)
both = pytest.mark.parametrize("backwards", [False, True], ids=["forward", "inverse"])


def directed(f, backwards):
    return f.inverse if backwards else f


@every
@both
def test_log_determinant_is_that_of_the_jacobian(name, backwards, device):
    f = transform(name, device=device)
    g = directed(f, backwards)
    for i, x in enumerate(events(f, 5, device=device)):
        c = contexts(f, 5, device=device)
        c = c if c is None else c[i]
        n = x.numel()
        jacobian = torch.autograd.functional.jacobian(lambda x, c=c: g(x[None], c)[0][0], x).reshape(n, n)
        logdet = g(x[None], c)[1]
        assert logdet.shape == (1,) and logdet.dtype == torch.float64
        assert_close(logdet[0], jacobian.slogdet().logabsdet, rtol=1e-9, atol=1e-9)


@every
def test_goes_there_and_back(name, device, dtype):
    f = transform(name, dtype, device)
    x, c = events(f, 300, dtype=dtype, device=device), contexts(f, 300, dtype=dtype, device=device)
    y, logdet = f(x, c)
    back, other = f.inverse(y, c)
    assert y.dtype == back.dtype == dtype and (y - x).abs().max() > 0.01
    # slopes of some ten, of splines and of networks in what they are given: some ten thousand roundings
    at = {"rtol": 0, "atol": 4e-11 if dtype == torch.float64 else 2e-3}
    assert_close(back, x, **at)
    assert_close(other, -logdet, **at)
    assert_close(f.inv(y, c)[0], back, rtol=0, atol=0)
    assert_close(f.inv.inverse(x, c)[0], y, rtol=0, atol=0)
    assert_close(f.log_abs_det_jacobian(x, c), logdet, rtol=0, atol=0)


@every
@both
def test_finite_differences(name, backwards):
    f = transform(name)
    x, c = events(f, 2).requires_grad_(), contexts(f, 2)
    c = c if c is None else c.requires_grad_()
    names, weights = [n for n, _ in f.named_parameters()], [p.detach().requires_grad_() for p in f.parameters()]
    if "inverse" in name:  # it differentiates the layers' own parameters
        names, weights = [], []

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, x, c):
            return directed(self.f, backwards)(x, c)

    def call(x, c, *weights):
        y, logdet = functional_call(Both(), {f"f.{n}": w for n, w in zip(names, weights, strict=True)}, (x, c))
        return y, logdet

    assert gradcheck(call, (x, c, *weights), atol=1e-8, rtol=1e-6, fast_mode=len(weights) > 2)


@every
def test_batch_dimensions_and_strides_do_not_matter(name):
    f = transform(name)
    x, c = events(f, 6), contexts(f, 6)
    y, logdet = f(x, c)
    shaped = f(x.view(2, 3, *x.shape[1:]), c if c is None else c.view(2, 3, -1))
    assert_close(shaped[0].flatten(0, 1), y, rtol=0, atol=1e-14)
    assert_close(shaped[1].flatten(), logdet, rtol=0, atol=1e-13)
    strided = torch.stack([x, x], -1)[..., 0]
    assert_close(f(strided, c)[0], y, rtol=0, atol=1e-14)
    one = f(x, c if c is None else c[0])  # one context for all
    assert_close(one[0][0], y[0], rtol=0, atol=1e-14)
    back = f.inverse(y, c if c is None else c[:1])
    assert_close(back[0][0], x[0], rtol=0, atol=1e-11)


@every
def test_empty_batch(name):
    f = transform(name)
    y, logdet = f(events(f, 0), contexts(f, 0))
    assert y.shape == (0, *(f.event_shape)) and logdet.shape == (0,)
    assert f.inverse(y, contexts(f, 0))[0].shape == y.shape


@every
@both
def test_refuses_other_shapes(name, backwards):
    f = transform(name)
    g = directed(f, backwards)
    x, c = events(f, 2), contexts(f, 2)
    with pytest.raises(ValueError, match=r"must have shape .*got \(2, "):
        g(torch.cat([x, x], -1), c)
    if c is not None:
        with pytest.raises(ValueError, match="got None"):
            g(x)
        with pytest.raises(ValueError, match=r"context must have shape \(\*batch, 3\), got \(2, 2\)"):
            g(x, c[:, :2])
        with pytest.raises(ValueError, match="broadcasts to the batch"):
            g(x, contexts(f, 5))


@every
@both
def test_vmap(name, backwards):
    f = transform(name)
    g = directed(f, backwards)
    x, c = events(f, 4), contexts(f, 4)
    y, logdet = vmap(g, (0, None if c is None else 0))(x, c)
    assert_close((y, logdet), g(x, c), rtol=0, atol=1e-13)


def slopes(function, f, x, c):
    f.zero_grad()
    x = x.clone().requires_grad_()
    y, logdet = function(x, c)
    (y.sum() + logdet.sum()).backward()
    return [y, logdet, x.grad, *(p.grad for p in f.parameters())]


@every
@both
def test_compiles_whole(name, backwards):
    f = transform(name)
    g = directed(f, backwards)
    torch._dynamo.reset()
    x, c = events(f, 6), contexts(f, 6)
    compiled = torch.compile(g, fullgraph=True, backend="eager" if backwards else "aot_eager")
    at = {"rtol": 1e-9, "atol": 1e-9} if name == "compose inverse" else {"rtol": 1e-13, "atol": 1e-13}
    assert_close(slopes(compiled, f, x, c), slopes(g, f, x, c), **at)


@every
def test_state_goes_through_a_file(name, tmp_path):
    f, g = transform(name), TRANSFORMS[name]().double()
    torch.save(f.state_dict(), tmp_path / "state.pt")
    g.load_state_dict(torch.load(tmp_path / "state.pt"))
    x, c = events(f, 3), contexts(f, 3)
    assert_close(g(x, c), f(x, c), rtol=0, atol=0)
    assert_close(deepcopy(f)(x, c), f(x, c), rtol=0, atol=0)


def test_every_transform_of_the_library_is_tested():
    def subclasses(kind):
        return {kind, *(s for k in kind.__subclasses__() for s in subclasses(k))}

    stems = ("coupling", "autoregressive", "masked", "mixing", "orthogonal", "transform")
    ours = {f"hepops.flows.{stem}" for stem in stems}  # the lattice's have tests of their own
    public = {k for k in subclasses(flows.Transform) if k.__module__ in ours and not k.__name__.startswith("_")}
    used = {type(m) for name in TRANSFORMS for m in TRANSFORMS[name]().modules()}
    assert public - used == {flows.Transform}
