"""What the operators of elementwise bijections promise, in both directions."""

import sys

import torch
from core.contract import assert_same_bits, outputs_and_gradients
from torch.testing import assert_close

formulas = {
    name: getattr(sys.modules[f"hepops.flows.{module}"], formula)
    for name, module, formula in [
        ("affine", "affine", "formula"),
        ("circular", "circular", "formula"),
        ("sigmoid_mixture", "sigmoid_mixture", "formula"),
        ("piecewise_linear", "piecewise", "linear_formula"),
        ("piecewise_quadratic", "piecewise", "quadratic_formula"),
        ("squash", "squash", "formula"),
    ]
}


def solved(formula, y, x, *raw):
    """The inverse with its first derivatives: one Newton step of the formula from the solution x, at a fixed slope."""
    value, logdet = formula(x, *raw)
    x = x - (value - y) / logdet.detach().exp()
    return x, -formula(x, *raw)[1]


class Bijection:
    """Beside a Contract. `formula(x, raw)` is the plain one; `raw(size, **at)`, `x(size, **at)` make the arguments."""

    sizes = (0, 1, 15, 70)  # more than a block of elements
    twice = True
    inverted = False

    @classmethod
    def reference(cls, x, *raw):
        if not cls.inverted:
            return cls.formula(x, *raw)
        with torch.no_grad():
            solution = cls.function(x, *raw)[0]
        return solved(cls.formula, x, solution, *raw)

    @classmethod
    def sample(cls, size, **at):
        raw = cls.raw(size, **at)
        x = cls.x(size, **at)
        if cls.inverted:
            x = cls.forward(x, *raw)[0].clone()
        return x, *raw

    @staticmethod
    def rounding(dtype):
        """Gradients of the inverse have the reciprocal of the slope."""
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}

    def test_round_trip(self, device):
        """f^-1(f(x)) = x and opposite log-derivatives, to what rounding of y leaves of x."""
        args = self.sample(1000, device=device, dtype=torch.float64)
        there = self.function(*args)
        other = self.forward if self.inverted else self.backwards
        back = other(there[0], *args[1:])
        slope = there[1].exp() if not self.inverted else 1 + 0 * there[1]
        scale = 1 + args[0].abs() + (1 + there[0].abs()) / slope
        assert ((back[0] - args[0]).abs() <= 1e-14 * scale).all()
        assert_close(back[1], -there[1], rtol=1e-9, atol=1e-9)

    def test_raw_parameters_of_any_layout(self, device, dtype):
        """Channels first, expanded and sliced: the bits of the dense ones."""
        x, *raw = self.sample(120, device=device, dtype=dtype)
        if not raw:
            return
        x, dense = x.view(4, 5, 6), raw[0].view(4, 5, 6, -1)
        first = dense.movedim(-1, 1).contiguous().movedim(1, -1)
        sliced = torch.cat([dense, dense], -1)[..., : dense.shape[-1]]
        turned = dense.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
        expected = outputs_and_gradients(self.function, (x, dense))
        for other in (first, sliced, turned):
            assert_same_bits(outputs_and_gradients(self.function, (x, other)), expected)
        shared = self.function(x, dense[:1, :1])
        assert_same_bits(shared, self.function(x, dense[:1, :1].expand(4, 5, 6, -1).contiguous()))

    def test_half_parameters(self, device):
        x, *raw = self.sample(100, device=device, dtype=torch.float32)
        if not raw:
            return
        for kind in (torch.float16, torch.bfloat16):
            half = raw[0].to(kind)
            (value, logdet), (grad_x, grad) = outputs_and_gradients(self.function, (x, half))
            (wide, wide_logdet), (wide_x, wide_grad) = outputs_and_gradients(self.function, (x, half.float()))
            assert_same_bits((value, logdet, grad_x), (wide, wide_logdet, wide_x))
            assert grad.dtype == kind
            assert_same_bits(grad, wide_grad.to(kind))

    def test_numbers_do_not_see_their_neighbours(self, device, dtype):
        args = self.sample(300, device=device, dtype=dtype)
        whole = self.function(*args)
        parts = [self.function(*(a[i : i + 7] for a in args)) for i in range(0, 300, 7)]
        assert_same_bits(whole, tuple(torch.cat(p) for p in zip(*parts, strict=True)))

    def test_nan_gives_nan(self, device, dtype):
        args = self.sample(40, device=device, dtype=dtype)
        for argument in args:
            spoiled = [a.clone() for a in args]
            place = next(n for n, a in enumerate(args) if a is argument)
            spoiled[place].view(40, -1)[3, 0] = torch.nan
            outputs = self.function(*spoiled)
            assert outputs[0].isnan().nonzero().tolist() == [[3]]
            clean = self.function(*args)
            keep = torch.arange(40, device=device) != 3
            assert_same_bits([o[keep] for o in outputs], [o[keep] for o in clean])

    def test_vmap(self, device, dtype):
        args = self.sample(30, device=device, dtype=dtype)
        folded = [a.view(5, 6, *a.shape[1:]) for a in args]
        mapped = torch.vmap(self.function, in_dims=1, out_dims=1)(*folded)
        assert_same_bits(mapped, tuple(o.view(5, 6) for o in self.function(*args)))

    def test_transforms_of_torch_func(self, device):
        """Gradients of each number, and second derivatives by forward mode, are those of torch.autograd."""
        args = self.sample(5, device=device, dtype=torch.float64)
        loss = lambda *args: sum((o * o).sum() for o in self.function(*args))  # noqa: E731
        places = tuple(range(len(args)))
        each = torch.vmap(torch.func.grad(loss, places))(*args)
        leaves = [a.clone().requires_grad_() for a in args]
        slopes = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        assert_close(list(each), [s.detach() for s in slopes], rtol=1e-10, atol=1e-10)
        v = [torch.randn_like(a) for a in args]
        curved = torch.autograd.grad(slopes, leaves, v)
        ours = torch.func.jvp(torch.func.grad(loss, places), tuple(args), tuple(v))[1]
        assert_close(list(ours), list(curved), rtol=1e-8, atol=1e-8)
