import pytest
import torch
from hepops.core import exclusive_scan
from hypothesis import given
from hypothesis import strategies as st

from core.contract import Contract, assert_same_bits


class TestExclusiveScan(Contract):
    op = torch.ops.hepops.exclusive_scan.default
    function = staticmethod(exclusive_scan)
    refused = (torch.int32, torch.float32)
    refusal = "exclusive_scan: counts must be int64"

    @staticmethod
    def reference(counts):
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0))

    @staticmethod
    def sample(size, device, dtype):
        return (torch.randint(0, 1 << 40, (size,), device=device),)


@given(st.lists(st.integers(-1000, 1000), max_size=50))
def test_a_part_ends_where_the_next_begins(counts):
    offsets = exclusive_scan(torch.tensor(counts, dtype=torch.int64))
    assert offsets[0] == 0 and offsets[-1] == sum(counts)
    assert offsets.diff().tolist() == counts


def test_many_chunks(device):
    counts = torch.randint(0, 100, (1_000_003,), device=device)
    assert_same_bits(exclusive_scan(counts), TestExclusiveScan.reference(counts))


def test_refuses_a_matrix(device):
    with pytest.raises(ValueError, match=r"counts must be \(N\), got shape \(2, 3\)"):
        exclusive_scan(torch.zeros(2, 3, dtype=torch.int64, device=device))
