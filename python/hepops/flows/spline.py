"""Rational-quadratic splines: monotone bijections with closed forms in both directions, as one fused operator."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake, register_vmap

from hepops.core.func import transforms_active
from hepops.core.ops import call

from ._spline_formula import Bound as Bound
from ._spline_formula import Convention as Convention
from ._spline_formula import Tails as Tails
from ._spline_formula import domain, formula
from ._spline_formula import slope_count as slope_count
from ._spline_func import Forward, batched

_TAILS: tuple[Tails, ...] = ("linear", "circular", None)  # their numbers in the operator
_CONVENTIONS: tuple[Convention, ...] = ("nflows", "zuko")
_COUNTED = {"linear": "K - 1 with linear tails", "circular": "K with circular tails", None: "K + 1 without tails"}
_HALVES = (torch.float16, torch.bfloat16)


def rational_quadratic_spline(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    slopes: Tensor,
    *,
    inverse: bool = False,
    tails: Tails = "linear",
    bound: Bound = None,
    convention: Convention = "nflows",
) -> tuple[Tensor, Tensor]:
    r"""A monotone map of a domain onto itself, through K + 1 knots :math:`(x_k, y_k)` with slopes :math:`d_k`.

    With :math:`w = x_{k+1} - x_k`, :math:`h = y_{k+1} - y_k`, :math:`s = h/w`, :math:`\xi = (x - x_k)/w` in bin k and
    :math:`q = \xi (1 - \xi)`:

    .. math::
        y &= y_k + h\, \frac{s \xi^2 + d_k q}{s + (d_k + d_{k+1} - 2 s)\, q} \\
        \frac{dy}{dx} &= s^2\, \frac{d_{k+1} \xi^2 + 2 s q + d_k (1 - \xi)^2}{[s + (d_k + d_{k+1} - 2 s)\, q]^2}

    The knots come from any real numbers :math:`W, H, D`, in one of the two parametrisations of the field (:math:`L` is
    the length of the domain):

    .. math::
        \text{nflows:} \quad w &= L\,[\tfrac{1}{1000} + (1 - \tfrac{K}{1000})\, \mathrm{softmax}(W)], &
        d &= \tfrac{1}{1000} + \ln(1 + e^D) \\
        \text{zuko:} \quad w &= L\,\mathrm{softmax}\frac{W}{1 + |2 W / \ln 1000|}, &
        d &= \exp \frac{D}{1 + |D / \ln 1000|}

    Args:
        x: Any shape, float32 or float64; y where `inverse`. Under autocast also the halves, taken to float32.
        widths: :math:`W`, shape (\*shape of `x`, K), or broadcast with it. In the dtype of `x`, or float32 beside
            float64, or float16 and bfloat16 beside float32. Strides of any kind are read without a copy.
        heights: :math:`H`, likewise.
        slopes: :math:`D`, likewise: K - 1 inner ones with linear tails (the ends have slope 1), K with circular ones
            (the last knot is the first), K + 1 without tails.
        inverse: Whether to map y to x.
        tails: Beyond the domain: "linear", the identity; "circular", x is wrapped into it first; None, NaN.
        bound: The domain: a number B for [-B, B], or a pair (low, high); each a number or a tensor that is broadcast
            to `x`, for a domain of each element. By default 5 for linear tails, pi for circular ones, (0, 1) without.
        convention: "nflows" (as well normflows, MadNIS) or "zuko".

    Returns:
        (y, logdet), of the shape and dtype of `x`: :math:`\ln dy/dx`, or :math:`\ln dx/dy` where `inverse`.

    Differentiable with respect to `x`, `widths`, `heights` and `slopes` any number of times: once by a fused kernel
    that computes all anew from these inputs, further by a composite formula in float64. `bound` is not differentiated.
    Deterministic: every element is computed by itself.

    Knots, search and inversion are computed in double whatever the dtype. In the inverse direction logdet is that of x
    as it is returned, rounded. In the domain, ends included, circular x are left as they are; its ends are those of
    `bound` in the dtype of x. A NaN makes NaN of the elements that it enters; an infinite x beyond linear tails is
    mapped to itself, with logdet 0. Where the domain is empty (low >= high in a tensor), so is the set of x inside it;
    where a tensor's end of it is not finite, the results are NaN.

    Raises:
        TypeError: a dtype that is not served.
        ValueError: shapes that do not go together, no bin, 1000 or more of nflows' (whose least width is 1/1000),
            unknown `tails` or `convention`, an empty domain, a `bound` that wants a gradient.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS 2019, arXiv:1906.04032
        | J. A. Gregory, R. Delbourgo, IMA J. Numer. Anal. 2 (1982) 123, doi:10.1093/imanum/2.2.123
        | D. J. Rezende et al., ICML 2020, arXiv:2002.02428 (circular)

    Example:
        >>> x, logits = torch.tensor([-1.0, 0.5, 7.0]), torch.zeros(4)
        >>> y, logdet = rational_quadratic_spline(x, logits, torch.arange(4.0), logits[:3])
        >>> y
        tensor([-4.1719, -3.3854,  7.0000])
        >>> rational_quadratic_spline(y, logits, torch.arange(4.0), logits[:3], inverse=True)[0]
        tensor([-1.0000,  0.5000,  7.0000])
    """
    check_names(tails, convention)
    K = widths.shape[-1] if widths.dim() else 0
    if K < 1:
        raise ValueError(f"rational_quadratic_spline: widths must have at least 1 bin, got shape {tuple(widths.shape)}")
    S = slope_count(K, tails)
    for name, p, count, why in (("heights", heights, K, "as many as widths"), ("slopes", slopes, S, _COUNTED[tails])):
        if p.dim() == 0 or p.shape[-1] != count:
            raise ValueError(
                f"rational_quadratic_spline: {name} has shape {tuple(p.shape)}, expected (..., {count}): "
                f"{why}, where widths has shape {tuple(widths.shape)}"
            )
    return _apply(x, [widths, heights, slopes], K, inverse, tails, bound, convention)


def rational_quadratic_spline_packed(
    x: Tensor,
    raw: Tensor,
    *,
    bins: int,
    inverse: bool = False,
    tails: Tails = "linear",
    bound: Bound = None,
    convention: Convention = "nflows",
) -> tuple[Tensor, Tensor]:
    """:func:`rational_quadratic_spline` of one tensor that holds widths, heights and slopes behind each other.

    Its gradient is one tensor too, written once; slices of one tensor would each be filled with zeros and added.

    Args:
        x: As there.
        raw: Shape (*shape of x, 2 K + number of slopes), or broadcast with it.
        bins: K.
        inverse: As there, and so what follows.

    Example:
        >>> rational_quadratic_spline_packed(torch.tensor([0.5]), torch.zeros(11), bins=4, convention="zuko")
        (tensor([0.5000]), tensor([0.]))
    """
    check_names(tails, convention)
    if bins < 1:
        raise ValueError(f"rational_quadratic_spline: bins must be at least 1, got {bins}")
    size = 2 * bins + slope_count(bins, tails)
    if raw.dim() == 0 or raw.shape[-1] != size:
        raise ValueError(
            f"rational_quadratic_spline: raw has shape {tuple(raw.shape)}, expected (..., {size}): "
            f"K widths, K heights and {_COUNTED[tails]}, K = {bins}"
        )
    return _apply(x, [raw], bins, inverse, tails, bound, convention)


def check_names(tails: Tails, convention: Convention) -> None:
    if tails not in _TAILS:
        raise ValueError(f"rational_quadratic_spline: tails must be 'linear', 'circular' or None, got {tails!r}")
    if convention not in _CONVENTIONS:
        raise ValueError(f"rational_quadratic_spline: convention must be 'nflows' or 'zuko', got {convention!r}")


def ends_of(bound: Bound, tails: Tails) -> tuple[float | Tensor, float | Tensor]:
    """The domain that `bound` says, refused where it is empty or no domain."""
    if isinstance(bound, tuple) and len(bound) != 2:
        raise ValueError(f"rational_quadratic_spline: bound must be a number or a pair (low, high), got {bound}")
    try:
        low, high = domain(bound, tails)
        low, high = (b if isinstance(b, Tensor) else float(b) for b in (low, high))
    except (TypeError, ValueError):
        raise TypeError(f"rational_quadratic_spline: bound must be of numbers or tensors, got {bound!r}") from None
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and not -math.inf < low < high < math.inf:
        what = "must be positive and finite" if not isinstance(bound, tuple) else "must be finite, low below high"
        raise ValueError(f"rational_quadratic_spline: bound {what}, got {bound}")
    return low, high


def _ends(bound: Bound, tails: Tails, x: Tensor) -> tuple[list[Tensor], float, float]:
    """The domain as the operator takes it: two tensors for domains of each element, or none, and two numbers."""
    low, high = ends_of(bound, tails)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        ends = [torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (low, high)]
        if any(e.requires_grad for e in ends):
            raise ValueError("rational_quadratic_spline: bound has no gradient, detach it")
        return ends, 0.0, 1.0
    if x.dtype == torch.float32:
        most, eps = 3.4028234663852886e38, 1.2e-7
        if max(-low, high) > most or high - low <= eps * max(-low, high):
            raise ValueError(f"rational_quadratic_spline: bound must be a domain of float32 numbers, got {bound}")
    return [], low, high


def _apply(
    x: Tensor, raw: list[Tensor], bins: int, inverse: bool, tails: Tails, bound: Bound, convention: Convention
) -> tuple[Tensor, Tensor]:
    if x.dtype in _HALVES and torch.is_autocast_enabled(x.device.type):
        x = x.float()
    ends, lower, upper = _ends(bound, tails, x)
    shapes = [p.shape[:-1] for p in raw] + [e.shape for e in ends]
    if any(s != x.shape for s in shapes):
        try:
            shape = torch.broadcast_shapes(x.shape, *shapes)
        except RuntimeError:
            given = ", ".join(str(tuple(s)) for s in shapes)
            raise ValueError(
                f"rational_quadratic_spline: x has shape {tuple(x.shape)}, which does not broadcast with {given}, "
                f"the shapes of the parameters without their last dimension and of the bound"
            ) from None
        x, raw = x.expand(shape), [p.expand(*shape, p.shape[-1]) for p in raw]
        ends = [e.expand(shape) for e in ends]
    if ends:
        x = torch.where(ends[0].isfinite() & ends[1].isfinite(), x, math.nan)
    widths, heights, slopes = raw if len(raw) == 3 else (raw[0], None, None)
    low, high = ends or (None, None)
    numbers = lower, upper, bins, _TAILS.index(tails), _CONVENTIONS.index(convention), inverse
    arguments = x, widths, heights, slopes, low, high, *numbers
    if transforms_active():
        return Forward.apply(*arguments)
    return call(torch.ops.hepops.flows_rational_quadratic_spline.default, *arguments)


@register_fake("hepops::flows_rational_quadratic_spline")
def _(x: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@register_fake("hepops::_flows_rational_quadratic_spline_backward")
def _(grad_value: Tensor, grad_logdet: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    widths, heights, slopes = rest[:3]
    parts = (widths.new_empty(0 if p is None else p.shape) for p in (heights, slopes))
    return x.new_empty(x.shape), widths.new_empty(widths.shape), *parts


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.numbers = inputs[6:]


def _backward(ctx: Any, grad_value: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
    op = torch.ops.hepops._flows_rational_quadratic_spline_backward.default
    saved = ctx.saved_tensors  # once: a checkpoint computes them again each time
    *grads, heights, slopes = op(grad_value, grad_logdet, *saved, *ctx.numbers)
    separate = saved[2] is not None
    return *grads, heights if separate else None, slopes if separate else None, *(None,) * 8


register_autograd("hepops::flows_rational_quadratic_spline", _backward, setup_context=_setup)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.numbers = inputs[8:]


def gradients_of(saved: Sequence[Any], numbers: tuple[Any, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The backward operator in torch's operators, a function of both seeds, x and the parameters that are tensors.

    saved: x, widths, heights, slopes, low and high, or None for those that are not there.
    numbers: As the operator has them.
    """
    lower, upper, K, tails, convention, inverse = numbers
    x, *_, low, high = saved
    if low is None:  # in the dtype of x, as the operator has them
        low, high = (torch.tensor(b, dtype=x.dtype, device=x.device) for b in (lower, upper))

    def spline(x: Tensor, widths: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        heights, slopes = rest or (widths[..., K : 2 * K], widths[..., 2 * K :])
        return formula(
            x.double(),
            widths[..., :K].double(),
            heights.double(),
            slopes.double(),
            inverse=inverse,
            tails=_TAILS[tails],
            bound=(low.double(), high.double()),
            convention=_CONVENTIONS[convention],
        )

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        seeds, arguments = tensors[:2], tensors[2:]
        return torch.func.vjp(spline, *arguments)[1](tuple(g.double() for g in seeds))

    return gradients


def double_backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
    """The derivative of the backward operator, in torch's operators: it can be differentiated any number of times."""
    saved = ctx.saved_tensors
    given = [n for n in range(6) if saved[n] is not None]
    gradients = gradients_of(saved[2:], ctx.numbers)
    results = torch.func.vjp(gradients, *(saved[n] for n in given))[1](tuple(v[: len(given) - 2]))
    found = dict(zip(given, results, strict=True))
    return tuple(found.get(n) for n in range(14))


register_autograd("hepops::_flows_rational_quadratic_spline_backward", double_backward, setup_context=_setup_backward)


def _batched(op: Any, tensors: int) -> Any:
    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, ...]:
        moved = batched(info, in_dims, arguments, tensors)
        outputs = op(*moved)
        return outputs, tuple(0 if o.dim() == moved[0].dim() or o.numel() else None for o in outputs)

    return rule


for _name, _tensors in (("flows_rational_quadratic_spline", 6), ("_flows_rational_quadratic_spline_backward", 8)):
    register_vmap(f"hepops::{_name}", _batched(getattr(torch.ops.hepops, _name).default, _tensors))
