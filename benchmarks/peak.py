"""The core's own limit: multiply-adds per second of a kernel that lives in registers and the first-level cache.

A share of this peak says how good a kernel is on any machine, and on one whose clock is shared.
"""

import ctypes
import functools
import subprocess
import tempfile
import time
from pathlib import Path

# 6 rows of 4 vectors stay in registers, as in a matrix product whose operands are in the first-level cache.
SOURCE = r"""
#if defined(__AVX512F__)
constexpr int bytes = 64, rows = 6, columns = 4;
#elif defined(__AVX__)
constexpr int bytes = 32, rows = 4, columns = 3;
#else
constexpr int bytes = 16, rows = 4, columns = 3;
#endif
typedef float V __attribute__((vector_size(bytes), aligned(4)));
constexpr int lanes = bytes / 4, depth = 64;
float a[rows * depth], b[depth * columns * lanes], c[rows * columns * lanes];  // visible, so that nothing is folded

extern "C" double flop(long repeats) {
  for (long repeat = 0; repeat < repeats; ++repeat) {
    V sum[rows][columns] = {};
    for (int k = 0; k < depth; ++k)
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < columns; ++j)
          sum[i][j] += a[i * depth + k] * *(const V*)(b + (k * columns + j) * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < columns; ++j) *(V*)(c + (i * columns + j) * lanes) = sum[i][j];
    asm volatile("" ::: "memory");
  }
  return 2.0 * rows * columns * lanes * depth * repeats;
}
"""


@functools.cache
def _kernel() -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp())
    (folder / "peak.cpp").write_text(SOURCE)
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", "-w"]
    subprocess.run(["g++", *flags, "peak.cpp", "-o", "peak.so"], cwd=folder, check=True)
    kernel = ctypes.CDLL(str(folder / "peak.so"))
    kernel.flop.restype, kernel.flop.argtypes = ctypes.c_double, [ctypes.c_long]
    return kernel


def peak(seconds: float = 0.2) -> float:
    """Floating-point operations per second of processor time, float32, one thread: the best of ten runs."""
    kernel, best = _kernel(), 0.0
    for _ in range(10):
        start = time.process_time()
        flop = 0.0
        while time.process_time() - start < seconds / 10:
            flop += kernel.flop(2000)
        best = max(best, flop / (time.process_time() - start))
    return best


if __name__ == "__main__":
    print(f"{1e-9 * peak():.1f} GFLOP/s")
