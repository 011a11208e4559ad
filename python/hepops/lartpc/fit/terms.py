r"""From the scores of independent intervals to gradient and information of all unknowns, common ones and nuisances.

With :math:`g_b` the score of interval b, :math:`-\log L` has the gradient :math:`-\sum_b g_b`, and the outer products
:math:`\sum_b g_b g_b^T` are an unbiased estimate of the information: the intervals of a pixel are conditioned on what
was measured before, so that their scores are uncorrelated. A nuisance has a score only in the intervals of its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arrow import Arrow
from .nuisance import Family, Unknowns
from .residuals import Likelihood

BLOCK = 4096


def ordered_sum(values: Tensor) -> Tensor:
    """Sums along the last axis in blocks of 4096: the same bits for any number of threads, unlike torch's own."""
    n = values.shape[-1]
    if n <= BLOCK:
        return values.sum(-1)
    padded = torch.nn.functional.pad(values, (0, -n % BLOCK))
    return ordered_sum(padded.unflatten(-1, (-1, BLOCK)).sum(-1))


@dataclass(frozen=True)
class Scores:
    """Per interval, or sum of some: its event, its score with respect to common unknowns and to the groups it is of."""

    event: Tensor  # int64 (n)
    common: Tensor  # (K, n)    d log L / dp
    single: Tensor  # (F, n)    d log L / dv of the group of each family
    group: Tensor  # int64 (F, n)

    def gradient(self, unknowns: Unknowns) -> Tensor:
        """(K + M) the gradient of log L."""
        parts = [ordered_sum(self.common)]
        for f, family in enumerate(unknowns.families):
            parts.append(_by_group(self.single[f], self.group[f], len(family)))
        return torch.cat(parts)

    def information(self, unknowns: Unknowns) -> Arrow:
        """The sum of outer products."""
        k, dense = len(unknowns.space), unknowns.dense
        corner = self.common.new_zeros((dense, dense))
        corner[:k, :k] = torch.stack([ordered_sum(self.common * row) for row in self.common])
        tail = [f for f, family in enumerate(unknowns.families) if family.spec.per == "event"]
        others = [f for f in range(len(unknowns.families)) if f not in tail]
        for f in others:
            self._block(corner, unknowns.families, f, others)
        if not tail:
            return Arrow.dense(corner)
        (t,) = tail
        events = len(unknowns.families[t])
        border = self.common.new_zeros((dense, events))
        border[:k] = _by_group(self.common * self.single[t], self.group[t], events)
        for f in others:
            family = unknowns.families[f]
            border[family.first : family.first + len(family)] = self._cross(f, t, len(family), events)
        return Arrow(corner, border, _by_group(self.single[t] ** 2, self.group[t], events))

    def by_event(self) -> Scores:
        """Summed over the intervals of an event that share their groups: what a spread over events needs."""
        key = torch.cat((self.event[None], self.group))
        rows, inverse = torch.unique(key, dim=1, return_inverse=True)
        n = rows.shape[1]
        return Scores(rows[0], _by_group(self.common, inverse, n), _by_group(self.single, inverse, n), rows[1:])

    def _block(self, corner: Tensor, families: tuple[Family, ...], f: int, others: list[int]) -> None:
        k, family = len(self.common), families[f]
        mine = slice(family.first, family.first + len(family))
        cross = _by_group(self.common * self.single[f], self.group[f], len(family))
        corner[:k, mine], corner[mine, :k] = cross, cross.T
        for g in others:
            other = families[g]
            theirs = slice(other.first, other.first + len(other))
            corner[mine, theirs] = self._cross(f, g, len(family), len(other))

    def _cross(self, f: int, g: int, rows: int, columns: int) -> Tensor:
        product = self.single[f] * self.single[g]
        return _by_group(product, self.group[f] * columns + self.group[g], rows * columns).reshape(rows, columns)


def _by_group(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Sums along the last axis by group, one after the other: the same bits every time."""
    zeros = values.new_zeros((*values.shape[:-1], count))
    return zeros.index_add(-1, group, values)


def scores(
    part: Likelihood,
    unknowns: Unknowns,
    values: Mapping[str, float],
    common: Mapping[str, float],
    deviation: Sequence[float],
) -> Scores:
    """The scores of a section in terms of the unknowns.

    Args:
        part: What a likelihood returned, its columns in the order of `unknowns.names`.
        unknowns: Which there are.
        values: The values of the section, by name.
        common: The common values, by name.
        deviation: All unknowns, of which the deviations are looked at.
    """
    if part.scores is None or part.event is None or part.tpc is None or part.ix is None or part.iy is None:
        raise ValueError(
            "nuisance: this likelihood returns no scores per interval (Likelihood.scores, event, tpc, ix, iy), "
            "without which a nuisance has no information"
        )
    names = unknowns.names
    columns = part.scores.detach().double().cpu().T.contiguous()
    # value = common e^v: d/dp = (value / p) d/dvalue, d/dv = value d/dvalue; a time offset adds
    per_common = {n: values[n] / common[n] if n != "time_offset" and common[n] else 1.0 for n in names}
    per_single = {n: 1.0 if n == "time_offset" else values[n] for n in names}
    place = [part.event.cpu(), part.tpc.cpu(), part.ix.cpu(), part.iy.cpu()]
    group = [family.of(*place) for family in unknowns.families]
    for family, g in zip(unknowns.families, group, strict=True):
        if family.spec.per == "tile":  # within the section: a value for each pixel
            v = columns.new_tensor(deviation[family.first : family.first + len(family)])
            columns[names.index(family.spec.name)] *= torch.exp(v[g])
    top = [columns[i] * per_common[n] for i, n in enumerate(unknowns.space.names)]
    single = [columns[names.index(base)] * per_single[base] for base in unknowns.bases]
    none = columns.new_zeros((0, columns.shape[1]))
    return Scores(
        place[0],
        torch.stack(top) if top else none,
        torch.stack(single) if single else none,
        torch.stack(group) if group else none.long(),
    )


@dataclass(frozen=True)
class Terms:
    """-log L with its derivatives with respect to all unknowns; physical common ones."""

    value: float
    gradient: Tensor  # (K + M)
    information: Arrow
    report: Mapping[str, int]
    scores: tuple[Scores, ...] = ()  # summed by event, where they were asked for
    scored: bool = False  # whether it was made of scores, kept or not

    def __add__(self, other: Terms) -> Terms:
        names = {**self.report, **other.report}
        return Terms(
            self.value + other.value,
            self.gradient + other.gradient,
            self.information + other.information,
            {name: self.report.get(name, 0) + other.report.get(name, 0) for name in names},
            self.scores + other.scores,
            self.scored or other.scored,
        )
