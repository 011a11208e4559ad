import pytest
import torch
from hepops.core import sort_pairs
from hypothesis import given
from hypothesis import strategies as st

from core.contract import Contract, assert_same_bits


class TestSortPairs(Contract):
    op = torch.ops.hepops.sort_pairs.default
    function = staticmethod(sort_pairs)
    refused = (torch.int32, torch.float32)
    refusal = "sort_pairs: keys must be int64"

    @staticmethod
    def reference(keys, payload, bits):
        order = torch.sort(keys, stable=True).indices
        return keys[order], order if payload is None else payload[order]

    @staticmethod
    def sample(size, device, dtype):
        """Few keys, so that many are equal and the sort must be stable."""
        keys = torch.randint(0, 64, (size,), device=device)
        return keys, (torch.randint(-9, 9, (size,), device=device) if dtype == torch.float32 else None), 6


int64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(int64 | st.integers(-3, 3), max_size=50))
def test_orders_signed_keys(keys):
    sorted_keys, order = sort_pairs(torch.tensor(keys, dtype=torch.int64))
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)
    assert sorted_keys.tolist() == sorted(keys)


@given(st.lists(int64, max_size=20), st.integers(0, 63))
def test_looks_at_the_lowest_bits_only(keys, bits):
    _, order = sort_pairs(torch.tensor(keys, dtype=torch.int64), bits=bits)
    assert order.tolist() == sorted(range(len(keys)), key=lambda i: keys[i] % (1 << bits))


@pytest.mark.parametrize("bits", [0, 1, 20, 64])
def test_many_chunks(device, bits):
    keys = torch.randint(0, 1 << min(bits, 62), (300_001,), device=device)
    before = keys.clone()
    assert_same_bits(sort_pairs(keys, None, bits), TestSortPairs.reference(keys, None, bits))
    assert_same_bits(keys, before)


def test_refuses_what_has_no_meaning(device):
    keys = torch.zeros(3, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="bits must be 0 to 64, got 65"):
        sort_pairs(keys, bits=65)
    with pytest.raises(ValueError, match=r"payload has shape \(2\), expected \(3\)"):
        sort_pairs(keys, keys[:2])
    with pytest.raises(TypeError, match="payload has dtype Int, expected Long"):
        sort_pairs(keys, keys.int())
    with pytest.raises(ValueError, match=r"keys must be \(N\), got shape \(3, 1\)"):
        sort_pairs(keys[:, None])
