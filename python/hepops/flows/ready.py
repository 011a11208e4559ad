"""Flows that are ready to be trained: from data to the base, as all flows here."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from .autoregressive import Autoregressive
from .bases import Base, Normal, Uniform
from .coupling import Coupling, Pointwise
from .elementwise import Affine, Elementwise, Spline
from .flow import Flow
from .made import MADE
from .mixing import CircularShift, LULinear, Permutation
from .networks import MLP, Activation, Periodic, ResidualMLP
from .orthogonal import Householder, Orthogonal
from .recompute import Recompute
from .spline import Convention
from .transform import Compose, Transform

Mixing = Literal["reverse", "random", "lu", "orthogonal", "householder"] | None


class Options(TypedDict, total=False):
    """What every ready flow takes.

    hidden: Widths of the networks, (64, 64).
    residual: Residual blocks, one for each width, instead of a plain MLP (couplings only).
    activation: Of the networks, "relu".
    mixing: What comes between layers: None, "reverse", "random" (permutations), "lu", "orthogonal" or "householder".
    seed: Of random permutations, 0.
    base: Another base of the same events.
    recompute, every: As for Compose.
    validate: As for Flow.
    """

    hidden: Sequence[int]
    residual: bool
    activation: Activation
    mixing: Mixing
    seed: int
    base: Base | None
    recompute: Recompute
    every: int | None
    validate: bool | None


_MIXINGS: dict[str, Callable[[int, int], Transform]] = {
    "reverse": lambda features, seed: Permutation.reverse(features),
    "random": lambda features, seed: Permutation.random(features, seed),
    "lu": lambda features, seed: LULinear(features, "random", seed=seed),
    "orthogonal": lambda features, seed: Orthogonal(features),
    "householder": lambda features, seed: Householder(features, 2 * ((features + 1) // 2)),
}


def _stack(
    who: str,
    features: int,
    layers: int,
    layer: Callable[[int], Sequence[Transform]],
    base: Callable[[], Base],
    options: Options,
) -> Flow:
    """`layers` layers with the mixing between them, over the base."""
    if features < 1 or layers < 1:
        raise ValueError(f"{who}: features and layers must be at least 1, got {features} and {layers}")
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        known = ", ".join(Options.__annotations__)
        raise TypeError(f"{who}: options are {known}, got {', '.join(sorted(unknown))}")
    mixing, seed = options.get("mixing"), options.get("seed", 0)
    if mixing not in (None, *_MIXINGS):
        raise ValueError(f"{who}: mixing must be None or one of {', '.join(_MIXINGS)}, got {mixing!r}")
    transforms: list[Transform] = []
    for i in range(layers):
        if i and mixing is not None:
            transforms.append(_MIXINGS[mixing](features, seed + i))
        transforms += layer(i)
    stack = Compose(transforms, options.get("recompute"), options.get("every"))
    return Flow(stack, options.get("base") or base(), validate=options.get("validate"))


def _network(inputs: int, outputs: int, context: int, options: Options) -> nn.Module:
    hidden, activation = options.get("hidden", (64, 64)), options.get("activation", "relu")
    if not options.get("residual", False):
        return MLP(inputs, outputs, hidden, context, activation)
    if len(set(hidden)) != 1:
        raise ValueError(f"residual: hidden must hold one width, once for each block, got {tuple(hidden)}")
    return ResidualMLP(inputs, outputs, hidden[0], len(hidden), context, activation)


def _half(features: int, i: int) -> Tensor:
    """The first half and the others in turn: ranges, which a coupling takes without an index."""
    return (torch.arange(features) < (features + 1) // 2) == (i % 2 == 0)


def _coupling(bijection: Elementwise, features: int, context: int, i: int, options: Options) -> Transform:
    if features == 1 and not context:
        return Pointwise(bijection, 1)
    mask = torch.ones(1, dtype=torch.bool) if features == 1 else _half(features, i)
    active = int(mask.sum())
    network = _network(features - active, active * bijection.size, context, options)
    return Coupling(mask, bijection, network, context=context)


def nsf(
    features: int,
    context: int = 0,
    *,
    layers: int = 4,
    bins: int = 8,
    bound: float = 5.0,
    convention: Convention = "nflows",
    **options: Unpack[Options],
) -> Flow:
    """Neural spline flow: couplings of rational-quadratic splines on the two halves in turn, over normal numbers.

    Args:
        features, context: Widths of x and of the context.
        layers: Couplings; two change every feature once.
        bins: Of a spline.
        bound: Splines live in [-bound, bound] and are the identity outside: data should be of order 1.
        convention: How a network's numbers become a spline, "nflows" or "zuko".
        options: See :class:`Options`.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS (2019), arXiv:1906.04032

    Example:
        >>> flow = hepops.flows.nsf(4, context=2, layers=2, hidden=(32, 32), residual=True, mixing="lu")
        >>> flow.log_prob(torch.zeros(5, 4), torch.zeros(2)).shape
        torch.Size([5])
    """
    spline = Spline(bins, bound, convention=convention)
    return _stack(
        "nsf",
        features,
        layers,
        lambda i: [_coupling(spline, features, context, i, options)],
        lambda: Normal(features),
        options,
    )


def realnvp(features: int, context: int = 0, *, layers: int = 8, **options: Unpack[Options]) -> Flow:
    """Affine couplings on the two halves in turn, over normal numbers.

    Args:
        features, context: Widths of x and of the context.
        layers: Couplings; two change every feature once.
        options: See :class:`Options`.

    References:
        | L. Dinh, J. Sohl-Dickstein, S. Bengio, ICLR (2017), arXiv:1605.08803

    Example:
        >>> hepops.flows.realnvp(3, layers=2).sample(4, seed=1).shape
        torch.Size([4, 3])
    """
    return _stack(
        "realnvp",
        features,
        layers,
        lambda i: [_coupling(Affine(), features, context, i, options)],
        lambda: Normal(features),
        options,
    )


def maf(
    features: int,
    context: int = 0,
    *,
    layers: int = 5,
    bijection: Elementwise | None = None,
    **options: Unpack[Options],
) -> Flow:
    """Masked autoregressive flow: densities in one pass of each network, the order of features reversed in turn.

    Args:
        features, context: Widths of x and of the context.
        layers: Autoregressive transforms.
        bijection: Of each number; None is affine.
        options: See :class:`Options`.

    References:
        | G. Papamakarios, T. Pavlakou, I. Murray, NeurIPS (2017), arXiv:1705.07057

    Example:
        >>> hepops.flows.maf(3, layers=2, hidden=(32,)).log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """
    return _autoregressive("maf", features, context, layers, bijection or Affine(), False, options)


def iaf(
    features: int,
    context: int = 0,
    *,
    layers: int = 5,
    bijection: Elementwise | None = None,
    **options: Unpack[Options],
) -> Flow:
    """Inverse autoregressive flow: as :func:`maf` the other way round, samples in one pass of each network.

    Args:
        features, context, layers, bijection: As for :func:`maf`.
        options: See :class:`Options`.

    References:
        | D. P. Kingma et al., NeurIPS (2016), arXiv:1606.04934

    Example:
        >>> x, log_q = hepops.flows.iaf(3, layers=2, hidden=(32,)).rsample_and_log_prob(5, seed=1)
        >>> x.shape, log_q.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    return _autoregressive("iaf", features, context, layers, bijection or Affine(), True, options)


def autoregressive_nsf(
    features: int,
    context: int = 0,
    *,
    layers: int = 3,
    bins: int = 8,
    bound: float = 5.0,
    convention: Convention = "nflows",
    **options: Unpack[Options],
) -> Flow:
    """Autoregressive neural spline flow: :func:`maf` with rational-quadratic splines.

    Args:
        features, context, bins, bound, convention: As for :func:`nsf`.
        layers: Autoregressive transforms.
        options: See :class:`Options`.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS (2019), arXiv:1906.04032

    Example:
        >>> hepops.flows.autoregressive_nsf(3, layers=2, hidden=(32,)).sample(5, seed=1).shape
        torch.Size([5, 3])
    """
    spline = Spline(bins, bound, convention=convention)
    return _autoregressive("autoregressive_nsf", features, context, layers, spline, False, options)


def _autoregressive(
    who: str, features: int, context: int, layers: int, bijection: Elementwise, inverse: bool, options: Options
) -> Flow:
    hidden, activation = options.get("hidden", (64, 64)), options.get("activation", "relu")
    if options.get("residual", False):
        raise ValueError(f"{who}: residual networks are for couplings, a MADE has none")

    def layer(i: int) -> list[Transform]:
        order = "reverse" if i % 2 and options.get("mixing") is None else None
        made = MADE(features, bijection.size, hidden, context, order, activation=activation)
        transform = Autoregressive(bijection, made)
        return [transform.inv if inverse else transform]

    return _stack(who, features, layers, layer, lambda: Normal(features), options)


def circular_nsf(
    features: int, context: int = 0, *, layers: int = 4, bins: int = 8, **options: Unpack[Options]
) -> Flow:
    """Neural spline flow on a torus: angles in [-pi, pi], circular splines and learned rotations, over uniform angles.

    Networks see cosines and sines. All is continuous across pi, and so is the density.

    Args:
        features, context, layers, bins: As for :func:`nsf`.
        options: See :class:`Options`; mixing may be "reverse" or "random", since other mixing leaves the torus.

    References:
        | D. J. Rezende et al., ICML (2020), arXiv:2002.02428

    Example:
        >>> torus = hepops.flows.circular_nsf(2, layers=2, hidden=(32,))
        >>> bool(torus.sample(100, seed=1).abs().max() <= torch.pi)
        True
    """
    if options.get("mixing") not in (None, "reverse", "random"):
        raise ValueError(f'circular_nsf: mixing must be None, "reverse" or "random", got {options.get("mixing")!r}')
    spline = Spline(bins, math.pi, tails="circular")

    def layer(i: int) -> list[Transform]:
        if features == 1 and not context:
            return [CircularShift(1), Pointwise(spline, 1)]
        mask = torch.ones(1, dtype=torch.bool) if features == 1 else _half(features, i)
        active = int(mask.sum())
        network = Periodic(_network(2 * (features - active), active * spline.size, context, options))
        return [CircularShift(features), Coupling(mask, spline, network, context=context)]

    return _stack("circular_nsf", features, layers, layer, lambda: Uniform(features, -math.pi, math.pi), options)
