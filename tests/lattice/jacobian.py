"""The log-determinant of a layer on a lattice, by differences: every site or link is moved, all answers are read."""

import math

import torch
from hepops.lattice import group


def _moved(field, coordinate, by, kind):
    """One configuration, with one of its coordinates moved by `by`: a number, or i p^a T^a of one link."""
    moved = field.clone()
    if kind == "real":
        moved.view(-1)[coordinate] += by
        return moved
    n = field.shape[-1]
    size = n * n - 1
    p = torch.zeros(size, dtype=torch.float64)
    p[coordinate % size] = by
    links = moved.view(-1, n, n)
    links[coordinate // size] = torch.linalg.matrix_exp(group.from_coordinates(p, n)) @ links[coordinate // size]
    return moved


def _difference(ahead, behind, at, kind):
    """(ahead - behind) in the coordinates of the tangent space at `at`, shape (batch, coordinates)."""
    if kind == "real":
        return (ahead - behind).flatten(1)
    return group.to_coordinates((ahead - behind) @ at.mH).flatten(1)


def numeric_logdet(function, field, h=1e-3):
    """ln |det| of field -> function(field), for one configuration of real numbers or of SU(N) links, in float64.

    Eighth-order central differences: (4/5, -1/5, 4/105, -1/280) at h, 2h, 3h, 4h. For links both sides are in
    coordinates of dU U^+, in which the Haar measure is flat.

    Args:
        function: From a batch (B, *event) to a batch.
        field: One configuration, shape (1, *event).
    """
    kind = "links" if field.is_complex() else "real"
    n = field.shape[-1]
    count = field[0].numel() if kind == "real" else field[0].numel() // (n * n) * (n * n - 1)
    at = function(field)
    rows = []
    for start in range(0, count, 64):
        ks = range(start, min(start + 64, count))
        row = 0
        for step, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), 1):
            ahead = function(torch.cat([_moved(field, k, step * h, kind) for k in ks]))
            behind = function(torch.cat([_moved(field, k, -step * h, kind) for k in ks]))
            row = row + weight / h * _difference(ahead, behind, at, kind)
        rows.append(row)
    return torch.linalg.slogdet(torch.cat(rows).double()).logabsdet.item()


def numeric_logdet_of_angles(function, field, h=1e-3):
    """The same for angles: answers are compared modulo 2 pi."""

    at = function(field)

    def unwrapped(theta):
        return at + torch.remainder(function(theta) - at + math.pi, 2 * math.pi) - math.pi

    return numeric_logdet(unwrapped, field, h)
