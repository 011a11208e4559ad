import torch
from hepops.sparse.coordinates import coarsen, find, generate, index, union


def test_quick():
    c = torch.tensor([[0, 3, -1], [0, 3, -1], [1, 0, 0], [0, -5, 7]])
    i, first, inverse = index(c, (1, 1))
    assert first.tolist() == [0, 2, 3] and inverse.tolist() == [0, 0, 1, 2]
    assert find(i, c).tolist() == [0, 0, 1, 2]
    assert find(i, c + 100).tolist() == [-1] * 4
    assert c[first][i.schedule.long()].tolist() == [[0, -5, 7], [0, 3, -1], [1, 0, 0]]
    out, j = coarsen(c[first], i, (2, 2))
    assert out.tolist() == [[0, -6, 6], [0, 2, -2], [1, 0, 0]] and find(j, out).tolist() == [0, 1, 2]
    out, j = generate(out, torch.tensor([[0, 0], [1, 0]]), (1, 1))
    assert len(out) == 6
    out, j, rows = union([c[first], c + 1], (1, 1))
    assert len(out) == 6 and torch.equal(out[rows[1]], c + 1)
