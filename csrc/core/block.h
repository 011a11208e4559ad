#pragma once
// A block of a GPU's threads, in one text for the GPU and for the host, where GoogleTest runs it without a GPU.
//
// A kernel's body is a template on the block, and a sequence of steps:
//
//   block.each([&](int thread, Registers& r) { ... });  what every thread does with its own registers
//   block.each_warp([&](auto& warp) { ... });           what every warp does: warp.each, matrices, multiply
//   block.sync();                                       the barrier
//
// Shared memory is read and written by load(thread, ...), store(thread, ...) and copy_async(thread, ...). On a GPU
// these are the plain instructions. On the host a block runs thread by thread, and keeps book of every byte: to read
// what another thread has written without a barrier between, what a copy is still bringing, or what nobody wrote, is a
// fault. So what a missing barrier would do on a GPU shows in a test on any machine.
//
// The matrix instructions, their fragments and ldmatrix: NVIDIA, PTX ISA 8.7, section 9.7.14 (Warp-level matrix
// instructions). bfloat16, tf32 and asynchronous copies need sm_80.
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "core/host_device.h"
#include "core/team.h"

// #pragma unroll of nvcc, which other compilers need not know
#ifdef __CUDACC__
#define HEPOPS_PRAGMA(text) _Pragma(#text)
#define HEPOPS_UNROLL(times) HEPOPS_PRAGMA(unroll times)
#else
#define HEPOPS_UNROLL(times)
#endif

namespace hepops::core {

// Kinds of numbers that a matrix product takes. All add in float.
struct Bf16 {
  using Stored = uint16_t;
};
struct Fp16 {
  using Stored = uint16_t;
};
struct Tf32 {  // float32 whose operands are rounded to 10 bits of mantissa
  using Stored = float;
};
struct Fp32 {  // float32 throughout, without matrix instructions
  using Stored = float;
};

HEPOPS_HD float to_float(Bf16, uint16_t x) { return std::bit_cast<float>(uint32_t(x) << 16); }
HEPOPS_HD float to_float(Tf32, float x) { return x; }
HEPOPS_HD float to_float(Fp32, float x) { return x; }
HEPOPS_HD float to_float(Fp16, uint16_t x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
#else
  const uint32_t sign = uint32_t(x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float tiny = float(mantissa) * 0x1p-24f;
  return sign ? -tiny : tiny;
#endif
}

// Rounded to nearest, ties to even; NaN stays NaN.
HEPOPS_HD void from_float(Tf32, float x, float& y) { y = x; }
HEPOPS_HD void from_float(Fp32, float x, float& y) { y = x; }
HEPOPS_HD void from_float(Bf16, float x, uint16_t& y) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  y = x != x ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
HEPOPS_HD void from_float(Fp16, float x, uint16_t& y) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
#else
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000;
  const float size = std::bit_cast<float>(bits & 0x7fffffff);
  if (x != x) {
    y = 0x7fff;
  } else if (size >= 65520.0f) {
    y = uint16_t(sign | 0x7c00);
  } else if (size < 0x1p-14f) {  // below the normal numbers: a multiple of 2^-24, which the sum rounds to
    y = uint16_t(sign | (std::bit_cast<uint32_t>(size + 0.5f) - std::bit_cast<uint32_t>(0.5f)));
  } else {
    const uint32_t magnitude = (bits & 0x7fffffff) - (112u << 23);
    y = uint16_t(sign | (magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13);
  }
#endif
}

// To the nearest number of tf32, ties away from 0, as the matrix instruction wants its operands.
HEPOPS_HD uint32_t to_tf32(float x) {
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 800
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#else
  return __float_as_uint(x);
#endif
#else
  return x != x ? 0x7fffffffu : (std::bit_cast<uint32_t>(x) + 0x1000) & 0xffffe000;
#endif
}

struct alignas(16) Quad {
  float x[4];
};

#ifdef __CUDACC__

template <class Registers>
struct GpuWarp {
  int index;
  Registers& registers;

  template <class F>
  HEPOPS_HD void each(const F& f) const {
#ifdef __CUDA_ARCH__
    f(int(threadIdx.x), registers);
#endif
  }

  template <class T>
  HEPOPS_HD T load(int, const T* from) const {
    return *from;
  }

  // Four 8 x 8 matrices of 16-bit numbers from shared memory: lane l names row l % 8 of matrix l / 8, and receives of
  // each matrix the two neighbours (l / 4, 2 (l % 4)), of the transposed one where asked.
  template <bool transposed, class From, class To>
  HEPOPS_HD void load_matrices(const From& from, const To& to) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t* r = to(registers);
    const uint32_t address = uint32_t(__cvta_generic_to_shared(from(int(threadIdx.x))));
    if constexpr (transposed)
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                   : "r"(address)
                   : "memory");
    else
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                   : "r"(address)
                   : "memory");
#endif
  }

  // d += a b, 16 x 8 numbers, over 16 of 16 bits or 8 of tf32: f(registers, d, a, b) names the fragments.
  template <class Kind, class F>
  HEPOPS_HD void multiply(const F& f) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float* d;
    const uint32_t *a, *b;
    f(registers, d, a, b);
    if constexpr (std::is_same_v<Kind, Bf16>)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else if constexpr (std::is_same_v<Kind, Fp16>)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  }
};

template <int threads, class Registers>
struct GpuBlock {
  std::byte* memory;
  Registers registers;

  template <class F>
  HEPOPS_HD void each(const F& f) {
#ifdef __CUDA_ARCH__
    f(int(threadIdx.x), registers);
#endif
  }

  template <class F>
  HEPOPS_HD void each_warp(const F& f) {
#ifdef __CUDA_ARCH__
    f(GpuWarp<Registers>{int(threadIdx.x) / 32, registers});
#endif
  }

  HEPOPS_HD void sync() {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }

  template <class T>
  HEPOPS_HD T load(int, const T* from) const {
    return *from;
  }

  template <class T>
  HEPOPS_HD void store(int, T* to, T value) const {
    *to = value;
  }

  // 16 bytes to shared memory, the first `bytes` of them from global memory and zeros behind; both ends are aligned.
  HEPOPS_HD void copy_async(int, void* to, const void* from, int bytes) const {
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(uint32_t(__cvta_generic_to_shared(to))),
                 "l"(from), "r"(bytes)
                 : "memory");
#else
    *static_cast<uint4*>(to) = bytes ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
#endif
  }

  // Ends a group of copies.
  HEPOPS_HD void commit() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }

  // Waits until all but the last n groups of the thread's own copies are there.
  template <int n>
  HEPOPS_HD void wait() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
#endif
  }
};

#endif

// The host's form -----------------------------------------------------------------------------------------------------

// How an emulated block runs: threads in either order, copies as early or as late as they may arrive.
struct Manner {
  bool backwards = false, late = true;
};

// The shared memory of an emulated block, and who touched which byte since which barrier.
class WatchedMemory {
 public:
  explicit WatchedMemory(size_t bytes)
      : memory_((bytes + sizeof(Scratch) - 1) / sizeof(Scratch)), marks_(memory_.size() * sizeof(Scratch)) {}

  std::byte* begin() { return memory_.data()->bytes; }
  const std::string& fault() const { return fault_; }
  void barrier() { ++epoch_; }

  void read(int thread, const void* from, size_t bytes) {
    for (Mark* m = at(from, bytes); bytes-- > 0; ++m) {
      if (m->written == 0) blame("read of what nobody wrote", thread);
      if (m->pending) blame("read of what a copy is still bringing", thread);
      if (m->written == epoch_ && m->writer != thread) blame("read without a barrier after the write", thread);
      m->reader = m->read == epoch_ && m->reader != thread ? many : thread;
      m->read = epoch_;
    }
  }

  void write(int thread, const void* to, size_t bytes, bool pending = false) {
    for (Mark* m = at(to, bytes); bytes-- > 0; ++m) {
      if (m->pending) blame("write to where a copy is going", thread);
      if (m->written == epoch_ && m->writer != thread) blame("two threads write", thread);
      if (m->read == epoch_ && m->reader != thread) blame("write without a barrier after the read", thread);
      m->written = epoch_, m->writer = thread, m->pending = pending;
    }
  }

  void arrive(int thread, const void* to, size_t bytes) {
    for (Mark* m = at(to, bytes); bytes-- > 0; ++m) m->written = epoch_, m->writer = thread, m->pending = false;
  }

 private:
  static constexpr int many = -1;
  struct Mark {
    int written = 0, writer = 0, read = 0, reader = 0;
    bool pending = false;
  };
  Mark* at(const void* p, size_t bytes) {
    const int64_t offset = static_cast<const std::byte*>(p) - begin();
    if (offset < 0 || offset + bytes > marks_.size()) blame("beyond the shared memory", 0), std::abort();
    return marks_.data() + offset;
  }
  void blame(const char* what, int thread) {
    if (fault_.empty()) fault_ = std::string(what) + ", by thread " + std::to_string(thread);
  }
  std::vector<Scratch> memory_;
  std::vector<Mark> marks_;
  int epoch_ = 1;
  std::string fault_;
};

template <class Registers>
struct HostWarp {
  int index;
  Registers* registers;  // of 32 lanes
  WatchedMemory& shared;

  template <class F>
  void each(const F& f) const {
    for (int lane = 0; lane < 32; ++lane) f(32 * index + lane, registers[lane]);
  }

  template <class T>
  T load(int thread, const T* from) const {
    shared.read(thread, from, sizeof(T));
    return *from;
  }

  template <bool transposed, class From, class To>
  void load_matrices(const From& from, const To& to) const {
    uint16_t rows[32][8];
    for (int lane = 0; lane < 32; ++lane) {
      const void* row = from(32 * index + lane);
      shared.read(32 * index + lane, row, 16);
      if (reinterpret_cast<uintptr_t>(row) % 16) std::abort();
      std::memcpy(rows[lane], row, 16);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix) {
        const auto element = [&](int i, int j) -> uint32_t {
          return transposed ? rows[8 * matrix + j][i] : rows[8 * matrix + i][j];
        };
        const int i = lane / 4, j = 2 * (lane % 4);
        to(registers[lane])[matrix] = element(i, j) | element(i, j + 1) << 16;
      }
  }

  template <class Kind, class F>
  void multiply(const F& f) const {
    constexpr int per_word = 4 / sizeof(typename Kind::Stored), depth = 8 * per_word;
    float a[16][depth], b[depth][8], *d;
    const uint32_t *x, *y;
    const auto number = [](const uint32_t* word, int half) {
      if constexpr (per_word == 2)
        return to_float(Kind{}, uint16_t(word[0] >> 16 * half));
      else
        return std::bit_cast<float>(word[0] & 0xffffe000);
    };
    for (int lane = 0; lane < 32; ++lane) {
      f(registers[lane], d, x, y);
      const int g = lane / 4, t = lane % 4;
      for (int half = 0; half < per_word; ++half)
        for (int word = 0; word < 4; ++word) {
          const int k = per_word * t + half + (word / 2) * depth / 2;
          a[g + 8 * (word % 2)][k] = number(x + word, half);
          if (word % 2 == 0) b[k][g] = number(y + word / 2, half);
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
      f(registers[lane], d, x, y);
      for (int word = 0; word < 4; ++word)
        for (int k = 0; k < depth; ++k) d[word] += a[lane / 4 + 8 * (word / 2)][k] * b[k][2 * (lane % 4) + word % 2];
    }
  }
};

template <int threads, class Registers>
class HostBlock {
 public:
  HostBlock(size_t shared_bytes, Manner manner)
      : shared_(shared_bytes), memory(shared_.begin()), registers_(threads), copies_(threads), manner_(manner) {}

  const std::string& fault() const { return shared_.fault(); }

  template <class F>
  void each(const F& f) {
    for (int i = 0; i < threads; ++i) {
      const int thread = manner_.backwards ? threads - 1 - i : i;
      f(thread, registers_[thread]);
    }
  }

  template <class F>
  void each_warp(const F& f) {
    for (int i = 0; i < threads / 32; ++i) {
      const int warp = manner_.backwards ? threads / 32 - 1 - i : i;
      f(HostWarp<Registers>{warp, registers_.data() + 32 * warp, shared_});
    }
  }

  void sync() { shared_.barrier(); }

  template <class T>
  T load(int thread, const T* from) {
    shared_.read(thread, from, sizeof(T));
    return *from;
  }

  template <class T>
  void store(int thread, T* to, T value) {
    shared_.write(thread, to, sizeof(T));
    *to = value;
  }

  void copy_async(int thread, void* to, const void* from, int bytes) {
    if (reinterpret_cast<uintptr_t>(to) % 16 || (bytes && reinterpret_cast<uintptr_t>(from) % 16)) std::abort();
    shared_.write(thread, to, 16, true);
    const Copy copy{group_, to, from, bytes};
    copies_[thread].push_back(copy);
    if (!manner_.late) copy.run();
  }

  void commit() { ++group_; }

  template <int n>
  void wait() {
    for (int thread = 0; thread < threads; ++thread)
      for (auto& queue = copies_[thread]; !queue.empty() && queue.front().group < group_ - n; queue.pop_front()) {
        queue.front().run();
        shared_.arrive(thread, queue.front().to, 16);
      }
  }

 private:
  struct Copy {
    int group;
    void* to;
    const void* from;
    int bytes;
    void run() const {
      if (bytes) std::memcpy(to, from, bytes);
      std::memset(static_cast<std::byte*>(to) + bytes, 0, 16 - bytes);
    }
  };
  WatchedMemory shared_;

 public:
  std::byte* const memory;

 private:
  std::vector<Registers> registers_;
  std::vector<std::deque<Copy>> copies_;
  Manner manner_;
  int group_ = 0;
};

}  // namespace hepops::core
