"""The published vectors and the moments are tested in test_philox.cpp and test_distributions.cpp."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hepops import _core
from hepops.core import philox_normal, philox_uniform
from hypothesis import given
from hypothesis import strategies as st

from core.contract import Contract, assert_same_bits
from core.test_libraries import LEVELS


def words(index, seed, step, purpose):
    """Philox4x32-10 in numpy's uint64."""
    i, low = index.cpu().numpy().astype(np.uint64), np.uint64(0xFFFFFFFF)
    c = [i & low, i >> np.uint64(32), np.full_like(i, step), np.full_like(i, purpose)]
    for turn in range(10):
        k = [np.uint64((half + turn * weyl) % 2**32) for half, weyl in
             ((seed % 2**32, 0x9E3779B9), (seed >> 32, 0xBB67AE85))]  # fmt: skip
        p, q = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(q >> np.uint64(32)) ^ c[1] ^ k[0], q & low, (p >> np.uint64(32)) ^ c[3] ^ k[1], p & low]
    return c


def tensor(numbers, index):
    return torch.from_numpy(np.stack(numbers, -1)).to(index.device)


def uniform(index, seed, step, purpose, dtype):
    c = words(index, seed, step, purpose)
    pairs = [(c[0] << np.uint64(32)) | c[2], (c[1] << np.uint64(32)) | c[3]]
    bits = 23 if dtype == torch.float32 else 52
    return tensor([((p >> np.uint64(64 - bits)).astype(np.float64) + 0.5) * 2.0**-bits for p in pairs], index)


def normal(index, seed, step, purpose, dtype):
    c = words(index, seed, step, purpose)
    if dtype == torch.float32:  # u is rounded to float32, which near 1 moves its logarithm
        u = np.float32(c[0]).astype(np.float64) * 2.0**-32 + 2.0**-33
        u, v = np.float32(u).astype(np.float64), c[1].astype(np.float64) * 2.0**-32
    else:
        u = ((c[0] << np.uint64(32)) | c[2]).astype(np.float64) * 2.0**-64
        v = ((c[1] << np.uint64(32)) | c[3]).astype(np.float64) * 2.0**-64
    radius = np.sqrt(-2 * np.log(u))
    return tensor([radius * np.cos(2 * math.pi * v), radius * np.sin(2 * math.pi * v)], index)


class Philox:
    refused = (torch.int32, torch.float32)
    refusal = "philox: index must be int64"

    @staticmethod
    def sample(size, device, dtype):
        return torch.randint(0, 1 << 62, (size,), device=device), 0x123456789ABCDEF0, 3, 4, dtype


class TestUniform(Philox, Contract):
    op = torch.ops.hepops.philox_uniform.default
    function = staticmethod(philox_uniform)
    reference = staticmethod(uniform)

    @staticmethod
    def rounding(dtype):
        return {"rtol": 0, "atol": 0}


class TestNormal(Philox, Contract):
    op = torch.ops.hepops.philox_normal.default
    function = staticmethod(philox_normal)
    reference = staticmethod(normal)


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_any_shape_seed_and_step(shape, seed, step):
    index = torch.arange(math.prod(shape)).reshape(shape) - 2
    ours = philox_uniform(index, seed, step, 2**32 - 1, torch.float64)
    assert ours.shape == (*shape, 2)
    assert_same_bits(ours, uniform(index, seed, step, 2**32 - 1, torch.float64))


@pytest.mark.parametrize("draw", [philox_uniform, philox_normal])
def test_every_device_gives_the_same_bits(draw, device, dtype):
    index = torch.arange(100_000)
    assert_same_bits(draw(index.to(device), 5, dtype=dtype).cpu(), draw(index, 5, dtype=dtype))


PROGRAM = """
import hashlib, torch, hepops
bits = [draw(torch.arange(100_000), 5, dtype=dtype).numpy().tobytes()
        for draw in (hepops.core.philox_uniform, hepops.core.philox_normal) for dtype in (torch.float32, torch.float64)]
print(hashlib.sha256(b"".join(bits)).hexdigest())
"""
BITS = "49b14c409512d12201c665721a994b336efa8e3fc825c55c1f7eb73e3914a2d6"


@pytest.mark.parametrize("level", LEVELS)
def test_every_cpu_level_gives_the_same_bits(level):
    """One process loads one level. The sum is that of the first implementation: what a seed promises."""
    if level > _core.cpu_level():
        pytest.skip(f"this processor ends at {_core.cpu_level()}")
    environment = {**os.environ, "HEPOPS_CPU_LEVEL": level}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == BITS, run.stderr


def test_a_number_depends_on_its_name_alone():
    index = torch.randint(0, 1 << 40, (1000,))
    together = philox_normal(index, 9, step=2)
    assert_same_bits(philox_normal(index.flip(0), 9, step=2), together.flip(0))
    for other in (philox_normal(index, 10, 2), philox_normal(index, 9, 3), philox_normal(index, 9, 2, 1)):
        assert (other != together).all(-1).float().mean() > 0.99


def test_refuses_what_has_no_meaning():
    index = torch.arange(3)
    for seed in (-1, 1 << 64):
        with pytest.raises(ValueError, match=rf"seed must be in \[0, 2\^64\), got {seed}"):
            philox_normal(index, seed)
    with pytest.raises(ValueError, match=r"step must be in \[0, 2\^32\), got -1"):
        philox_uniform(index, 0, step=-1)
    with pytest.raises(ValueError, match=r"purpose must be in \[0, 2\^32\), got 4294967296"):
        philox_uniform(index, 0, purpose=1 << 32)
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got Half"):
        philox_normal(index, 0, dtype=torch.float16)
