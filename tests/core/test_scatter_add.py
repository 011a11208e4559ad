import pytest
import torch
from hepops.core import scatter_add
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from core.contract import Contract, assert_same_bits


class TestScatterAdd(Contract):
    op = torch.ops.hepops.scatter_add.default
    function = staticmethod(scatter_add)
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"index must be int64|must be float16, bfloat16, float32 or float64"

    @staticmethod
    def reference(index, values, rows, mode):
        return values.new_zeros((rows, *values.shape[1:])).index_add(0, index, values)

    @staticmethod
    def sample(size, **at):
        """The last row gets nothing; half of the entries meet in one row."""
        index = torch.randint(0, 12, (size,), device=at["device"])
        index[::2] = 3
        return index, torch.rand(size, 2, 3, **at), 13, "deterministic"

    def operands(self, args):
        index, values, rows, mode = args
        return index, values, rows, mode == "deterministic"


def both(function):
    return pytest.mark.parametrize("mode", ["deterministic", "atomic"])(function)


@both
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-100, 100)), max_size=40),
    st.lists(st.integers(0, 3), max_size=2),
)
def test_sums_of_any_shape(mode, entries, channels):
    index = torch.tensor([row for row, _ in entries], dtype=torch.int64)
    values = torch.tensor([float(v) for _, v in entries]).reshape(-1, *(1 for _ in channels)).expand(-1, *channels)
    sums = scatter_add(index, values, 5, mode)
    assert sums.shape == (5, *channels)
    for row in range(5):
        assert (sums[row] == sum(v for r, v in entries if r == row)).all()


@both
def test_modes_agree(device, dtype, mode):
    index = torch.randint(0, 1000, (100_000,), device=device)
    values = torch.rand(100_000, 3, device=device, dtype=dtype)
    exact = TestScatterAdd.reference(index, values.double(), 1000, mode)
    # 100 additions of order 1 to a sum of order 50 in the dtype; one rounding where the sum is in double
    additions = 100 if mode == "atomic" else 1
    assert_close(
        scatter_add(index, values, 1000, mode).double(), exact, rtol=additions * torch.finfo(dtype).eps, atol=0
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_a_crowded_row_keeps_its_digits(device, kind):
    """A running sum of ones would stop at 2^11 in float16, 2^8 in bfloat16 and 2^24 in float32."""
    n = 20_000_000 if kind == torch.float32 else 40_000
    index, values = torch.ones(n, dtype=torch.int64, device=device), torch.ones(n, dtype=kind, device=device)
    exact = torch.tensor([0.0, n, 0.0], dtype=torch.float64).to(kind)
    assert_same_bits(scatter_add(index, values, 3).cpu(), exact)


def test_runs_agree_to_the_last_bit(device):
    index = torch.randint(0, 7, (200_000,), device=device)
    values = torch.randn(200_000, device=device)
    first = scatter_add(index, values, 7)
    for _ in range(5):
        assert_same_bits(scatter_add(index, values, 7), first)


@both
def test_threads_do_not_matter_on_a_cpu(mode):
    index, values = torch.randint(0, 5000, (300_000,)), torch.randn(300_000, 2)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            results.append(scatter_add(index, values, 5000, mode))
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@both
def test_nothing_to_nowhere(device, mode):
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assert scatter_add(none, torch.zeros(0, 4, device=device), 0, mode).shape == (0, 4)
    assert_same_bits(scatter_add(none, torch.zeros(0, device=device), 2, mode).cpu(), torch.zeros(2))
    assert scatter_add(none, torch.zeros(0, 0, device=device), 2, mode).shape == (2, 0)


def test_a_sum_and_its_gather_are_adjoint(device):
    """<A v, y> = <v, A^T y>"""
    index = torch.randint(0, 50, (1000,), device=device)
    v = torch.randn(1000, 3, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randn(50, 3, dtype=torch.float64, device=device)
    product = (scatter_add(index, v, 50) * y).sum()
    (gather,) = torch.autograd.grad(product, v)
    assert_close((v * gather).sum(), product)
    assert_same_bits(gather, y[index])


def test_refuses_what_has_no_meaning():
    index, values = torch.tensor([0, 1, 5]), torch.rand(3)
    with pytest.raises(ValueError, match=r"index must be in \[0, 5\), got 5 at 2"):
        scatter_add(index, values, 5)
    with pytest.raises(ValueError, match=r"index must be in \[0, 5\), got -1 at 0"):
        scatter_add(torch.tensor([-1]), values[:1], 5, "atomic")
    with pytest.raises(ValueError, match=r"index must be in \[0, 0\), got 0 at 0"):
        scatter_add(index, values, 0)
    with pytest.raises(ValueError, match=r"values must be \(N, ...\) with N = 3 of the index, got shape \(2\)"):
        scatter_add(index, values[:2], 6)
    with pytest.raises(ValueError, match=r"index must be \(N\), got shape \(3, 1\)"):
        scatter_add(index[:, None], values, 6)
    with pytest.raises(ValueError, match="rows must not be negative, got -1"):
        scatter_add(index, values, -1)
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'fast'"):
        scatter_add(index, values, 6, mode="fast")
    with pytest.raises(TypeError, match="added atomically, must be float32 or float64, got Half"):
        scatter_add(index, values.half(), 6, mode="atomic")
