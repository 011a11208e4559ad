"""The operator under loops, clover leaves and staples, against plain torch and finite differences."""

import pytest
import torch
from core.contract import Contract
from hepops.lattice import SUN
from hepops.lattice.observables import loop_traces, path_products
from hepops.lattice.observables.paths import ANTIHERMITIAN, MATRICES, TRACES, formula, products, program, walk
from torch.testing import assert_close

PATHS = [[(0, 1, ~0, ~1), (1, ~0, ~1, 0)], [(1,)], [(~1, 0, 0, 1, ~0)]]


class Paths:
    op = torch.ops.hepops._lattice_paths.default
    sizes = (0, 1, 2)
    large = 60
    refused = (torch.int64, torch.float16, torch.float64)
    n, shape = 2, (3, 4)
    kind = MATRICES

    @classmethod
    def outputs(cls):
        return tuple(tuple(walk(p, len(cls.shape))[0] for p in paths) for paths in PATHS)

    @classmethod
    def function(cls, U):
        return products(U, cls.outputs(), cls.kind, 0.7)

    @classmethod
    def reference(cls, U):
        return formula(U, cls.outputs(), cls.kind, 0.7)

    def operands(self, args):
        (U,) = args
        row = program(self.outputs(), self.shape, len(self.shape), U.device)
        return U, row, len(PATHS), self.kind, 0.7

    @classmethod
    def sample(cls, size, *, device, dtype):
        theory = SUN(cls.n, cls.shape, 1.0)
        noise = torch.randn(size, *theory.event_shape, dtype=torch.promote_types(dtype, torch.complex32))
        return ((theory.random(size, seed=size, dtype=dtype) + 0.1 * noise).to(device),)  # the adjoint is no inverse


class TestPathMatrices(Paths, Contract):
    pass


class TestPathTraces(Paths, Contract):
    n, kind = 3, TRACES


class TestPathAntihermitian(Paths, Contract):
    n, shape, kind = 3, (2, 3, 2), ANTIHERMITIAN


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", [(5,), (1, 4), (2, 3, 5), (2, 1, 4, 3)])
def test_every_number_of_dimensions(n, shape, dtype, device):
    """Odd extents, 1 and 2 among them, and numbers of sites that fill no register."""
    kind = torch.promote_types(dtype, torch.complex32)
    fields = torch.randn(2, 2, *shape, n, n, dtype=kind, device=device)
    outputs = ((((0, True, (0,) * len(shape)), (1, False, (-1,) * len(shape)), (0, False, (3,) * len(shape))),),)
    rounding = 1e-13 if dtype == torch.float64 else 1e-5
    for which in (MATRICES, ANTIHERMITIAN, TRACES):
        assert_close(products(fields, outputs, which), formula(fields, outputs, which), rtol=rounding, atol=rounding)


def test_other_groups_take_the_formula(device):
    U = SUN(4, (2, 2), 1.0).random(1, seed=1).to(device)
    plaquette = SUN(4, (2, 2), 1.0).plaquettes(U)
    assert_close(path_products(U, [(0, 1, ~0, ~1)]), plaquette, rtol=0, atol=1e-14)


def test_refuses():
    U = SUN(2, (4, 4), 1.0).cold(1)
    with pytest.raises(ValueError, match=r"a path must have 1 to 4096 steps, got 0"):
        path_products(U, [()])
    with pytest.raises(ValueError, match=r"a path must have 1 to 4096 steps, got 5000"):
        path_products(U, [(0,) * 5000])
    with pytest.raises(ValueError, match=r"mu or ~mu with mu below 2, got 2"):
        path_products(U, [(0, 2)])
    with pytest.raises(ValueError, match=r"the path \(0, 1\) ends at x \+ \(1, 1\)"):
        loop_traces(U, [(0, 1)])
    with pytest.raises(ValueError, match=r"the program is not one of this field's"):
        row = program(((((2, False, (0, 0)),),),), (4, 4), 3, U.device)
        try:
            torch.ops.hepops._lattice_paths(U, row, 1, TRACES, 1.0)
        except RuntimeError as error:
            raise ValueError(str(error)) from None


def test_a_path_round_the_lattice_closes(device):
    U = SUN(2, (3, 2), 1.0).random(2, seed=3).to(device)
    line = path_products(U, [(0, 0, 0)])[:, 0]
    assert_close(loop_traces(U, [(0, 0, 0)])[:, 0], line.diagonal(dim1=-2, dim2=-1).sum(-1) / 2, rtol=0, atol=1e-14)
