"""Masks of gauge couplings: what is active, what is frozen, what is refused."""

from itertools import combinations

import pytest
import torch
from hepops.lattice.flows import lines, parity, sweep
from hepops.lattice.flows.loops import neighbourhood
from hepops.lattice.flows.masks import coordinates, reverse, staples, walk

PARITY = [(2, 2), (4, 2), (2, 4, 2), (2, 2, 2, 2)]
MASKS = [
    mask for shape in ((4, 4), (8, 4)) for mask in sweep(shape, "lines")
] + [mask for shape in PARITY for mask in sweep(shape, "parity")]  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 4), (8, 4)])
def test_lines_change_every_link_once(shape):
    assert (torch.stack([mask.active() for mask in sweep(shape, "lines")]).sum(0) == 1).all()


@pytest.mark.parametrize("shape", PARITY)
def test_parities_change_every_link_once(shape):
    assert (torch.stack([mask.active() for mask in sweep(shape, "parity")]).sum(0) == 1).all()


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_no_two_active_links_share_a_plaquette(mask):
    """So that a staple of an active link holds none."""
    ahead = mask.sites + torch.eye(len(mask.shape), dtype=torch.int64)[mask.mu]
    assert all(mask.frozen(ahead, path).all() for path in staples(mask.mu, len(mask.shape)))


@pytest.mark.parametrize("mask", sweep((8, 8), "lines"), ids=str)
def test_of_four_rows_of_plaquettes_one_is_active_one_passive_and_two_are_frozen(mask):
    frozen = mask.frozen(coordinates(mask.shape), (1, 2, -1, -2)).view(mask.shape)
    rows = (torch.arange(8) - mask.residue) % 4  # 0 active, 3 passive
    wanted = (rows == 1) | (rows == 2)
    assert torch.equal(frozen, (wanted[None, :] if mask.mu == 0 else wanted[:, None]).expand(8, 8))


@pytest.mark.parametrize("d", [3, 4])
def test_plaquettes_of_a_parity(d):
    """One active or passive link in each plaquette of mu, none in the others."""
    mask = parity((4,) * d, 1, 0)
    active = mask.active().flatten()
    for a, b in combinations(range(d), 2):
        count = active[walk(mask.shape, coordinates(mask.shape), (a + 1, b + 1, -a - 1, -b - 1))].sum(1)
        assert (count == (1 if 1 in (a, b) else 0)).all()


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_the_network_sees_no_active_link(mask):
    near = neighbourhood(mask, 1.5)
    active = mask.active().flatten()
    assert near.index.shape[0] == len(mask.sites) and near.index.shape[1] > 0
    for kind in near.kinds:
        assert not active[kind.links].any()


def test_a_walk_and_back_uses_the_same_links():
    starts = coordinates((4, 6))
    path = (1, 2, 2, -1)
    there, back = walk((4, 6), starts, path), walk((4, 6), starts + torch.tensor([0, 2]), reverse(path))
    assert torch.equal(there, back.flip(1))


def test_links_are_numbered_as_the_field_has_them():
    theta = torch.arange(2 * 3 * 5).view(2, 3, 5)
    starts = torch.tensor([[2, 4]])
    # U_0(x), U_1(x + 0), U_0(x + 1), U_1(x), with the border crossed in both directions
    assert walk((3, 5), starts, (1, 2, -1, -2)).tolist() == [
        [theta[0, 2, 4], theta[1, 0, 4], theta[0, 2, 0], theta[1, 2, 4]]
    ]


def test_refusals():
    with pytest.raises(ValueError, match=r"multiple of 4, got 6 of \(4, 6\)"):
        lines((4, 6), 0, 0)
    with pytest.raises(ValueError, match=r"multiple of 4, got 2 of \(2, 4\)"):
        lines((2, 4), 1, 0)
    with pytest.raises(ValueError, match=r"2 extents, got \(4, 4, 4\)"):
        lines((4, 4, 4), 0, 0)
    with pytest.raises(ValueError, match=r"all extents must be even, got \(4, 3\)"):
        parity((4, 3), 0, 0)
    with pytest.raises(ValueError, match=r"2 to 4 extents, got \(4\)"):
        parity((4,), 0, 0)
    with pytest.raises(ValueError, match=r"offset must lie in 0 ... 3, got 4"):
        lines((4, 4), 0, 4)
    with pytest.raises(ValueError, match=r"mu must lie in 0 ... 2, got 3"):
        parity((2, 2, 2), 3, 0)
    with pytest.raises(ValueError, match="pattern must be 'lines' or 'parity', got 'rows'"):
        sweep((4, 4), "rows")
    with pytest.raises(ValueError, match=r"no loop within 0.1 of the links of lines\(mu=0, 1\) is frozen"):
        neighbourhood(lines((4, 4), 0, 1), 0.1, twins=False)
