#pragma once
// BlockMatmul: d (M, N) += a (M, depth) b (depth, N), all of it by one block (block.h), a and b in shared memory.
//
// a lies as [m][k], or as [k][m] where a_by_k; b as [k][n], or as [n][k] where b_by_n: so a transposed operand needs no
// copy. d stays in the threads' registers; row(thread, i) and column(thread, i) say which element is which. Every
// element is the sum over ascending k in steps of an instruction's depth, whatever the block: no thread adds to
// another's. 2 M threads; warps lie in (M / 16) / warp_columns rows and warp_columns columns.
//
// Strides are padded so that neither the copies into shared memory nor the reads of fragments meet in a bank.
#include "core/block.h"

namespace hepops::core {

template <class K, int rows, int columns, bool a_by_k_, bool b_by_n_>
struct BlockMatmul {
  using Kind = K;
  using Stored = typename Kind::Stored;
  static constexpr bool matrix_unit = !std::is_same_v<Kind, Fp32>;
  static constexpr bool a_by_k = a_by_k_, b_by_n = b_by_n_;
  static constexpr int M = rows, N = columns, depth = 32, threads = 2 * M;
  static constexpr int along_k = depth + 16 / sizeof(Stored), across_k = 8;  // a stride, and the padding of another
  static constexpr int a_stride = a_by_k ? M + across_k : along_k, a_size = (a_by_k ? depth : M) * a_stride;
  static constexpr int b_stride = b_by_n ? along_k : N + across_k, b_size = (b_by_n ? N : depth) * b_stride;

  static constexpr int warp_columns = matrix_unit && M == 64 ? 2 : 1, warp_rows = M / 16 / warp_columns;
  static constexpr int m = M / warp_rows, n = N / warp_columns;  // that a warp computes
  static_assert(M == 32 || M == 64);
  static_assert(N == 32 || N == 64);

  // With matrix instructions a warp holds (m / 16) x (n / 8) fragments of d, each 16 x 8. Without, a thread holds 4
  // rows and n / 8 columns: those of four neighbours where a vector of four is read along them, else every fourth or
  // eighth.
  static constexpr int fragment_rows = m / 16, fragment_columns = n / 8, count = m * n / 32;
  struct MatrixRegisters {
    float d[fragment_rows][fragment_columns][4];
    uint32_t a[fragment_rows][4], b[fragment_columns / 2][4];
  };
  struct PlainRegisters {
    float d[4][n / 8];
    Quad a[4], b[n / 8];
  };
  using Registers = std::conditional_t<matrix_unit, MatrixRegisters, PlainRegisters>;

  HEPOPS_HD static void clear(Registers& r) {
    if constexpr (matrix_unit) {
      HEPOPS_UNROLL()
      for (int i = 0; i < fragment_rows; ++i) HEPOPS_UNROLL()
      for (int j = 0; j < fragment_columns; ++j) HEPOPS_UNROLL()
      for (int word = 0; word < 4; ++word) r.d[i][j][word] = 0;
    } else {
      HEPOPS_UNROLL()
      for (int i = 0; i < 4; ++i) HEPOPS_UNROLL()
      for (int j = 0; j < n / 8; ++j) r.d[i][j] = 0;
    }
  }

  HEPOPS_HD static int first_row(int warp) { return warp / warp_columns * m; }
  HEPOPS_HD static int first_column(int warp) { return warp % warp_columns * n; }

  // f(row, column, value) for every element that the thread holds
  template <class F>
  HEPOPS_HD static void for_elements(int thread, const Registers& r, const F& f) {
    const int lane = thread % 32, row = first_row(thread / 32), column = first_column(thread / 32);
    if constexpr (matrix_unit) {
      HEPOPS_UNROLL()
      for (int i = 0; i < fragment_rows; ++i) HEPOPS_UNROLL()
      for (int j = 0; j < fragment_columns; ++j) HEPOPS_UNROLL()
      for (int word = 0; word < 4; ++word)
        f(row + 16 * i + 8 * (word / 2) + lane / 4, column + 8 * j + 2 * (lane % 4) + word % 2, r.d[i][j][word]);
    } else {
      HEPOPS_UNROLL()
      for (int i = 0; i < 4; ++i) HEPOPS_UNROLL()
      for (int j = 0; j < n / 8; ++j) f(row + plain_row(lane, i), column + plain_column(lane, j), r.d[i][j]);
    }
  }

  template <class Warp>
  HEPOPS_HD static void accumulate(const Warp& warp, const Stored* a, const Stored* b) {
    const int row = first_row(warp.index), column = first_column(warp.index);
    if constexpr (!matrix_unit)
      accumulate_plain(warp, a, b, row, column);
    else if constexpr (sizeof(Stored) == 2)
      accumulate_halves(warp, a, b, row, column);
    else
      accumulate_words(warp, a, b, row, column);
  }

 private:
  HEPOPS_HD static int plain_row(int lane, int i) { return a_by_k ? lane / 8 * 4 + i : lane / 8 + 4 * i; }
  HEPOPS_HD static int plain_column(int lane, int j) {
    return b_by_n ? lane % 8 + 8 * j : j / 4 * 32 + lane % 8 * 4 + j % 4;
  }

  template <class Warp>
  HEPOPS_HD static void multiply(const Warp& warp) {
    HEPOPS_UNROLL()
    for (int i = 0; i < fragment_rows; ++i) HEPOPS_UNROLL()
    for (int j = 0; j < fragment_columns; ++j)
      warp.template multiply<Kind>([&](auto& r, float*& d, const uint32_t*& a, const uint32_t*& b) {
        d = r.d[i][j], a = r.a[i], b = r.b[j / 2] + 2 * (j % 2);
      });
  }

  template <class Warp>
  HEPOPS_HD static void accumulate_halves(const Warp& warp, const Stored* a, const Stored* b, int row, int column) {
    HEPOPS_UNROLL()
    for (int k = 0; k < depth; k += 16) {
      HEPOPS_UNROLL()
      for (int i = 0; i < fragment_rows; ++i)
        warp.template load_matrices<a_by_k>(
            [&](int thread) {
              const int l = thread % 8, matrix = thread % 32 / 8, mm = row + 16 * i + 8 * (matrix % 2),
                        kk = k + 8 * (matrix / 2);
              return a_by_k ? a + (kk + l) * a_stride + mm : a + (mm + l) * a_stride + kk;
            },
            [&](auto& r) { return r.a[i]; });
      HEPOPS_UNROLL()
      for (int j = 0; j < fragment_columns / 2; ++j)
        warp.template load_matrices<!b_by_n>(
            [&](int thread) {
              const int l = thread % 8, matrix = thread % 32 / 8, nn = column + 16 * j + 8 * (matrix / 2),
                        kk = k + 8 * (matrix % 2);
              return b_by_n ? b + (nn + l) * b_stride + kk : b + (kk + l) * b_stride + nn;
            },
            [&](auto& r) { return r.b[j]; });
      multiply(warp);
    }
  }

  template <class Warp>
  HEPOPS_HD static void accumulate_words(const Warp& warp, const float* a, const float* b, int row, int column) {
    HEPOPS_UNROLL()
    for (int k = 0; k < depth; k += 8) {
      warp.each([&](int thread, auto& r) {
        const int g = thread % 32 / 4, t = thread % 4;
        HEPOPS_UNROLL()
        for (int i = 0; i < fragment_rows; ++i) HEPOPS_UNROLL()
        for (int word = 0; word < 4; ++word) {
          const int mm = row + 16 * i + 8 * (word % 2) + g, kk = k + 4 * (word / 2) + t;
          r.a[i][word] = to_tf32(warp.load(thread, a_by_k ? a + kk * a_stride + mm : a + mm * a_stride + kk));
        }
        HEPOPS_UNROLL()
        for (int j = 0; j < fragment_columns; ++j) HEPOPS_UNROLL()
        for (int word = 0; word < 2; ++word) {
          const int nn = column + 8 * j + g, kk = k + 4 * word + t;
          r.b[j / 2][2 * (j % 2) + word] =
              to_tf32(warp.load(thread, b_by_n ? b + nn * b_stride + kk : b + kk * b_stride + nn));
        }
      });
      multiply(warp);
    }
  }

  template <class Warp>
  HEPOPS_HD static void accumulate_plain(const Warp& warp, const float* a, const float* b, int row, int column) {
    const auto quad = [&](int thread, const float* from) {
      return warp.load(thread, reinterpret_cast<const Quad*>(from));
    };
    warp.each([&](int thread, auto& r) {
      const int lane = thread % 32;
      HEPOPS_UNROLL(2)
      for (int k = 0; k < depth; k += 4) {
        HEPOPS_UNROLL()
        for (int i = 0; i < 4; ++i)
          r.a[i] = quad(thread, a_by_k ? a + (k + i) * a_stride + row + plain_row(lane, 0)
                                       : a + (row + plain_row(lane, i)) * a_stride + k);
        // b[j]: column j over four k where b_by_n, else k + j % 4 over four columns
        HEPOPS_UNROLL()
        for (int j = 0; j < n / 8; ++j)
          r.b[j] = quad(thread, b_by_n ? b + (column + plain_column(lane, j)) * b_stride + k
                                       : b + (k + j % 4) * b_stride + column + plain_column(lane, j / 4 * 4));
        HEPOPS_UNROLL()
        for (int kk = 0; kk < 4; ++kk) HEPOPS_UNROLL()
        for (int i = 0; i < 4; ++i) HEPOPS_UNROLL()
        for (int j = 0; j < n / 8; ++j)
          r.d[i][j] += (a_by_k ? r.a[kk].x[i] : r.a[i].x[kk]) * (b_by_n ? r.b[j].x[kk] : r.b[j / 4 * 4 + kk].x[j % 4]);
      }
    });
  }
};

// Rows of `length` numbers from global to shared memory, by all threads of a block: row(i) is where row i begins, or
// nullptr for zeros; beyond `valid` numbers and `valid_rows` rows stand zeros. `vectors`: rows and `valid` are whole
// and aligned 16 bytes, so that the copy is asynchronous; otherwise the numbers go one by one.
template <int rows, int length, int stride, int threads, class Stored, class Block, class Row>
HEPOPS_HD void stage(Block& block, int thread, Stored* to, const Row& row, int valid, int valid_rows, bool vectors,
                     const Stored* anywhere) {
  if (vectors) {
    constexpr int per_copy = 16 / sizeof(Stored), copies = length / per_copy;
    HEPOPS_UNROLL()
    for (int u = 0; u < (rows * copies + threads - 1) / threads; ++u) {
      const int at = thread + u * threads, i = at / copies, c = at % copies * per_copy;
      if (rows * copies % threads && at >= rows * copies) break;
      const Stored* from = i < valid_rows && c < valid ? row(i) : nullptr;
      block.copy_async(thread, to + i * stride + c, from ? from + c : anywhere, from ? 16 : 0);
    }
  } else {
    HEPOPS_UNROLL(2)
    for (int at = thread; at < rows * length; at += threads) {
      const int i = at / length, c = at % length;
      const Stored* from = i < valid_rows && c < valid ? row(i) : nullptr;
      block.store(thread, to + i * stride + c, from ? from[c] : Stored(0));
    }
  }
}

}  // namespace hepops::core
