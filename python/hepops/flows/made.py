"""MADE: a network whose outputs for a feature see only the features before it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Activation, activate, check_activation, check_widths, dense_with_context, linear


def input_degrees(features: int, order: Sequence[int] | Tensor | str | None = None, seed: int = 0) -> list[int]:
    """The place of every feature in the order of visits, from 1.

    Args:
        features: D.
        order: None for 0 ... D - 1, "reverse", "random" (by `seed`, the same everywhere), or the features as visited.
    """
    if order is None:
        order = range(features)
    elif isinstance(order, str):
        if order not in ("reverse", "random"):
            raise ValueError(f'MADE: order must be None, "reverse", "random" or a permutation, got {order!r}')
        generator = torch.Generator().manual_seed(seed)
        order = range(features)[::-1] if order == "reverse" else torch.randperm(features, generator=generator)
    visits = [int(f) for f in order]
    if sorted(visits) != list(range(features)):
        raise ValueError(f"MADE: order must be a permutation of 0 ... {features - 1}, got {visits}")
    places = [0] * features
    for place, feature in enumerate(visits):
        places[feature] = place + 1
    return places


def hidden_degrees(width: int, features: int, context: int = 0) -> list[int]:
    """Degrees of hidden units, sorted and spread evenly: a unit of degree m sees the first m features.

    With context some see nothing else (degree 0), so that the first feature depends on it too.
    """
    lowest = 0 if context or features == 1 else 1
    levels = features - lowest
    return [lowest + (i * levels) // width for i in range(width)]


class MADE(nn.Module):
    r"""A masked MLP: the parameters of feature d depend on context and on the features visited before d alone.

    Every unit has a degree m, input d its place among the visits (from 1); a weight from degree m' to a hidden unit of
    degree m stands where :math:`m \ge m'`, one to an output of degree d where :math:`d > m'`. Context reaches all.

    The masks are multiplied into the weights at every call: 2 microseconds for a layer of 64 x 64, and a cache would
    have to notice every way in which weights change. :class:`Autoregressive` goes back through :meth:`visit`, which
    uses the blocks of ones in the masks and computes every hidden unit once.

    Args:
        features: D.
        parameters: P, how many outputs a feature has.
        hidden: Widths between.
        context: C, 0 without.
        order: None for 0 ... D - 1, "reverse", "random", or the features in the order of visits.
        seed: Of the random order.
        activation: As for :class:`MLP`.
        degrees: Those of the hidden units, one list per hidden layer, each in [0, D - 1]; None spreads them evenly.

    Shape: x (..., D) and context (..., C) to (..., D P), feature by feature.

    Raises:
        ValueError: A width, the order, degrees or the activation is none of these.

    References:
        | M. Germain, K. Gregor, I. Murray, H. Larochelle, ICML (2015), arXiv:1502.03509

    Example:
        >>> network = hepops.flows.MADE(3, 2, hidden=(16,))
        >>> jacobian = torch.func.jacrev(network)(torch.zeros(3)).view(3, 2, 3).abs().sum(1)
        >>> bool((jacobian.triu() == 0).all())
        True
    """

    def __init__(
        self,
        features: int,
        parameters: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        order: Sequence[int] | Tensor | str | None = None,
        seed: int = 0,
        activation: Activation = "relu",
        degrees: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        check_activation("MADE", activation)
        check_widths("MADE", features=features - 1, parameters=parameters - 1, context=context)
        self.features, self.parameters_each, self.context, self.activation = features, parameters, context, activation
        places = input_degrees(features, order, seed)
        self.visits = sorted(range(features), key=places.__getitem__)
        if degrees is None:
            degrees = [hidden_degrees(width, features, context) for width in hidden]
        _check_degrees(degrees, hidden, features)
        levels = [[0] * context + places, *map(list, degrees), [p for p in places for _ in range(parameters)]]
        widths = [features + context, *hidden, features * parameters]
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise(widths))
        for i, (low, high) in enumerate(pairwise(levels)):
            strict = i == len(hidden)
            mask = torch.tensor(high)[:, None] >= torch.tensor(low)[None, :] + int(strict)
            if i == 0:  # context is the last of the columns
                mask = mask.roll(-context, 1)
            self.register_buffer(f"mask{i}", mask.to(torch.get_default_dtype()), persistent=False)
        self._plan = _Plan(self.visits, [list(d) for d in degrees], parameters)
        if not self._plan.is_sorted:  # units by degree, where the weights have them otherwise
            for i, units in enumerate([self._plan.columns, *self._plan.sorted, self._plan.rows]):
                self.register_buffer(f"units{i}", torch.tensor(units, dtype=torch.int64), persistent=False)

    def _masked(self, i: int) -> Tensor:
        weight: Tensor = self.layers[i].weight  # type: ignore[assignment]
        return weight * getattr(self, f"mask{i}")

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        n = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            activation = self.activation if i < n else None
            x, context = dense_with_context(x, context, self._masked(i), layer.bias, activation), None  # type: ignore[arg-type]
        return x

    @property
    def last(self) -> nn.Linear:
        """The layer whose bias starts at the identity of a bijection and whose weights start at 0."""
        return self.layers[-1]  # type: ignore[return-value]

    def visit(self, batch: int, context: Tensor | None = None) -> "Visit":
        """Begins a walk through the features, in which each is told before the next one's parameters are asked for.

        Args:
            batch: N, how many events walk together.
            context: Shape (N, C) or (1, C).
        """
        return Visit(self, batch, context)


def _check_degrees(degrees: Sequence[Sequence[int]], hidden: Sequence[int], features: int) -> None:
    if [len(d) for d in degrees] != list(hidden):
        raise ValueError(f"MADE: degrees must be lists of {list(hidden)} numbers, got {[len(d) for d in degrees]}")
    for values in degrees:
        if values and not (0 <= min(values) and max(values) < max(features, 1)):
            raise ValueError(f"MADE: degrees must be in [0, {features - 1}], got {sorted(set(values))}")


class _Plan:
    """Which units become known at which visit: units of every layer sorted by degree, and where each degree ends."""

    def __init__(self, visits: list[int], degrees: list[list[int]], parameters: int) -> None:
        self.sorted = [sorted(range(len(d)), key=d.__getitem__) for d in degrees]
        self.ends = [[sum(m <= t for m in d) for t in range(len(visits))] for d in degrees]
        self.columns = visits
        self.rows = [v * parameters + p for v in visits for p in range(parameters)]
        self.is_sorted = all(s == list(range(len(s))) for s in [*self.sorted, visits])


class Visit:
    """The state of a walk: what is known of each layer, units in rows so that a degree's units lie together.

    Where the degrees of two layers allow a weight at all the mask is one, so blocks of the weights serve as they are.
    All visits together cost one forward pass of products (and a copy of what is known, where gradients are wanted).
    """

    def __init__(self, made: MADE, batch: int, context: Tensor | None) -> None:
        self.made, self.step, plan = made, 0, made._plan
        self.weights: list[Tensor] = [layer.weight for layer in made.layers]  # type: ignore[misc]
        self.biases: list[Tensor] = [layer.bias[:, None] for layer in made.layers]  # type: ignore[index]
        if context is not None:
            joined = F.linear(context, self.weights[0][:, made.features :], self.biases[0][:, 0]).t()
            self.biases[0] = joined
        self.weights[0] = self.weights[0][:, : made.features]
        if not plan.is_sorted:
            units: list[Tensor] = [getattr(made, f"units{i}") for i in range(len(self.weights) + 1)]
            for i, (columns, rows) in enumerate(pairwise(units)):
                self.weights[i] = self.weights[i].index_select(0, rows).index_select(1, columns)
                self.biases[i] = self.biases[i].index_select(0, rows)
        self.known: list[Tensor | None] = [None] * len(self.weights)
        self.batch = batch

    def tell(self, x: Tensor) -> None:
        """The feature just visited, shape (N)."""
        self._add(0, x[None])

    def _add(self, layer: int, rows: Tensor) -> None:
        before = self.known[layer]
        self.known[layer] = rows if before is None else torch.cat([before, rows])

    def _product(self, layer: int, start: int, stop: int) -> Tensor:
        """Rows start ... stop - 1 of a layer's pre-activations, from what is known of the layer below."""
        below, bias = self.known[layer], self.biases[layer][start:stop]
        if below is None:
            weight = self.weights[layer]
            return bias.expand(stop - start, self.batch).to(weight.dtype, copy=True)
        weight = self.weights[layer][start:stop, : below.shape[0]]
        return torch.addmm(bias, weight, below)

    def raw(self) -> Tensor:
        """The parameters of the next feature, shape (N, P)."""
        t, made = self.step, self.made
        for layer, ends in enumerate(made._plan.ends):
            start, stop = ends[t - 1] if t else 0, ends[t]
            if stop > start:
                self._add(layer + 1, activate(self._product(layer, start, stop), made.activation))
        self.step += 1
        P = made.parameters_each
        return self._product(len(self.weights) - 1, t * P, (t + 1) * P).t()
