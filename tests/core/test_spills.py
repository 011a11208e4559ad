"""No kernel keeps registers or arrays in local memory, which is the GPU's slowest."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hepops.core.libraries import DIRECTORY

# Kernels that may, by a part of their name, and why. An entry that no kernel needs any more fails the test.
EXCEPTIONS: dict[str, str] = {
    "DeviceScanKernel": "CUB's; 8 bytes that wait for the tile before, once in a block",
    "sum_chunksILi12E": "arrive's backward: twelve slopes, indexed by a loop over groups that is not unrolled",
    "5_u1_cu": "40 bytes of the toolkit's sin and cos, which reduce arguments above 1e5 there",
    "16_u1_trajectory_cu": "the same",
    "8HeatbathI": "the staples' walk names directions as it goes: 328 bytes in SU(3), and sin and cos as above",
    "10MetropolisI": "the same",
    "9OverrelaxI": "sin and cos as above",
    "12PathProductsI": "a site's coordinates, indexed by the direction that the program names: 80 bytes",
    "20PathProductsBackwardI": "the same, twice",
    "11_residual_cu": "the 8 x 8 matrix of a link of SU(3), for one thread: to be shared by eight (residual.cu)",
    "6WorkerI": "hit_likelihood: an interval's columns and its sums across called functions: 3 to 8 kB, no spill",
    "15_checkerboard_cu": "the sites of a kernel, indexed by a loop whose length is the kernel's",
}

LIBRARY = DIRECTORY / "libhepops_cuda.so"


def cuobjdump():
    """The toolkit's, or the one that triton carries."""
    spec = find_spec("triton")
    carried = [Path(p) / "backends/nvidia/bin/cuobjdump" for p in spec.submodule_search_locations] if spec else []
    return shutil.which("cuobjdump") or next((path for path in carried if path.exists()), None)


def kernels():
    """(architecture, mangled name, bytes of stack, bytes of local memory) of every kernel."""
    text = subprocess.run([cuobjdump(), "--dump-resource-usage", LIBRARY], capture_output=True, text=True, check=True)
    architecture = name = ""
    for line in text.stdout.splitlines():
        if line.startswith("arch ="):
            architecture = line.split("=")[1].strip()
        elif function := re.match(r"\s*Function (.+):$", line):
            name = function.group(1)
        elif used := re.search(r"STACK:(\d+) .*LOCAL:(\d+)", line):
            yield architecture, name, *map(int, used.groups())


@pytest.mark.skipif(not LIBRARY.exists(), reason="needs the CUDA library")
@pytest.mark.skipif(not cuobjdump(), reason="needs cuobjdump")
def test_kernels_do_not_spill():
    found = list(kernels())
    assert found, "cuobjdump shows no kernel"
    spilling = [(arch, name, stack, local) for arch, name, stack, local in found if stack or local]
    assert not [kernel for kernel in spilling if not any(part in kernel[1] for part in EXCEPTIONS)]
    unused = [part for part in EXCEPTIONS if not any(part in name for _, name, *_ in spilling)]
    assert not unused, f"no kernel needs the exception any more: {unused}"
