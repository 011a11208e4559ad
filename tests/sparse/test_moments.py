import pytest
import torch
from core.contract import Contract, assert_same_bits
from hepops.sparse import moments
from hepops.sparse.norm import combine_moments
from torch.testing import assert_close

from sparse.lists import TILE


class TestMoments(Contract):
    op = torch.ops.hepops.sparse_moments.default
    function = staticmethod(lambda x: tuple(moments(x)))
    public = staticmethod(moments)
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "features must be float16, bfloat16, float32 or float64"

    @staticmethod
    def reference(x):
        """Of no rows 0."""
        mean = x.sum(0) / max(len(x), 1)
        return mean, ((x - mean) ** 2).sum(0) / max(len(x), 1)

    @staticmethod
    def sample(size, **at):
        return (torch.randn(size, 3, **at),)


def exact(x):
    x = x.double()
    mean = x.mean(0)
    return mean, ((x - mean) ** 2).mean(0)


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 31, 32, 33, 47, 64, 100, 200])
def test_any_number_of_channels_and_rows(device, channels):
    for rows in (1, 2, 7, 63, 64, 65, 255, 256, 257, 700):
        for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            x = (torch.randn(rows, channels, device=device) * 3 + 1).to(kind)
            for ours, theirs in zip(moments(x), exact(x), strict=True):
                assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_a_mean_far_beyond_the_spread_costs_no_digits(device):
    """A sum of squares minus a square would keep 16 - 2 x 8 = no digits of the variance."""
    x = torch.randn(5000, 40, device=device, dtype=torch.float64)
    offset = 2.0**30
    x = (x + offset) - offset  # what the sum of the two can hold
    far, near = moments(x + offset), moments(x)
    # a tile's mean is held to 2^-23 there, and is 1/16 away from that of the whole
    assert_close(far.variance, near.variance, rtol=2e-8, atol=0)
    assert_close(far.mean - offset, near.mean, rtol=0, atol=2.0**-22)  # the spacing of numbers there


def test_an_outlier_in_the_first_row_costs_no_digits(device):
    x = torch.randn(1000, 5, device=device, dtype=torch.float64)
    x[0] = 1e6
    assert_close(moments(x).variance, exact(x)[1], rtol=1e-12, atol=0)


def test_columns_without_spread_have_no_variance(device, dtype):
    x = torch.full((1000, 7), 0.1, device=device, dtype=dtype)
    mean, variance = moments(x)
    assert_same_bits(mean, x[0].double())
    assert_same_bits(variance, torch.zeros_like(variance))


def test_a_nan_stays_in_its_column(device):
    x = torch.randn(1000, 3, device=device)
    x[500, 1] = float("nan")
    mean, variance = moments(x)
    assert mean.isnan().tolist() == variance.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("rows", [0, 1, 256, 1000])
def test_moments_of_tiles_are_those_of_the_whole(device, rows):
    x = torch.randn(rows, 20, device=device, dtype=torch.float64)
    tiles = [torch.stack([m, v * len(t)]) for t in x.split(TILE[device]) for m, v in [exact(t)] if rows > 0]
    tiles = torch.stack(tiles) if tiles else x.new_zeros(0, 2, 20)
    for ours, theirs in zip(combine_moments(tiles, x), moments(x), strict=True):
        assert_close(ours, theirs, rtol=1e-13, atol=1e-14)


def test_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match=r"features must be \(N, C\), got shape \(3\)"):
        moments(torch.rand(3))
    with pytest.raises(ValueError, match=r"tiles must be \(2, 2, 4\), got shape \(1, 2, 4\)"):
        combine_moments(torch.zeros(1, 2, 4, dtype=torch.float64), torch.rand(300, 4))
    with pytest.raises(TypeError, match="tiles must be float64, got Float"):
        combine_moments(torch.zeros(2, 2, 4), torch.rand(300, 4))
