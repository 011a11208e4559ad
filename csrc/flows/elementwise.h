#pragma once
// A bijection (bijection.h) over tensors: blocks of elements, whose raw parameters are brought side by side in double
// into scratch, changed there in place, and for a gradient written back. Raw parameters have any strides: they are read
// once, in whatever order they lie in.
//
// A block is 32 elements in the first cache on a CPU, a few packs of SIMD lanes; on a GPU it is the elements of one
// block of threads in shared memory, which the threads fill together.
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/collapse.h"
#include "core/for_each_row.h"
#include "flows/bijection.h"

namespace hepops::flows {

using core::in, core::out, core::ScalarType, core::Tensor;

// Raw parameter p of element i lies at data[leading.place(i) + p * stride].
template <class S>
struct Raw {
  const S* data = nullptr;
  core::Leading leading;
  int64_t stride = 0;
  int count = 0;
};

template <class B, class T, class S>
struct Forward {
  static constexpr bool writes_raw = false;
  B bijection;
  bool inverse;
  Raw<S> raw;
  const T* x;
  T *value, *logdet;

  template <class R, class Load, class Store>
  HEPOPS_HD void operator()(const Lane<R>& lane, const Load& load, const Store& store) const {
    const auto image = apply(bijection, load(x), lane, inverse);
    store(value, image.value);
    store(logdet, image.logdet);
  }
};

template <class B, class T, class S>
struct Backward {
  static constexpr bool writes_raw = true;
  B bijection;
  bool inverse;
  Raw<S> raw;
  const T *x, *grad_value, *grad_logdet;
  T* grad_x;
  S* grad_raw;  // (n, P)

  template <class R, class Load, class Store>
  HEPOPS_HD void operator()(const Lane<R>& lane, const Load& load, const Store& store) const {
    const Image<R> grad{load(grad_value), load(grad_logdet)};
    store(grad_x, apply_backward(bijection, grad, load(x), lane, inverse));
  }
};

#ifdef __CUDACC__

// Neighbours in a row of scratch are a block's elements; one number more keeps a column's in different banks.
template <class F>
struct OnBlock {
  F f;
  int64_t n;

  HEPOPS_HD void operator()(int64_t block, const core::Team& team) const {
    double* scratch = reinterpret_cast<double*>(team.memory);
    const int64_t width = team.size + 1, first = block * team.size;
    const int count = int(n - first < team.size ? n - first : team.size), P = f.raw.count;
    const bool by_parameter = f.raw.stride != 1;  // the order that memory is read in
    for (int m = team.rank; m < count * P; m += team.size) {
      const int element = by_parameter ? m % count : m / P, p = by_parameter ? m / count : m % P;
      const int64_t place = f.raw.leading.place(first + element) + p * f.raw.stride;
      scratch[p * width + element] = double(f.raw.data[place]);
    }
    team.sync();
    if (team.rank < count) {
      const int64_t i = first + team.rank;
      f(
          Lane<double>{scratch + team.rank, width}, [i](const auto* from) { return double(from[i]); },
          [i](auto* to, double value) { to[i] = std::remove_reference_t<decltype(*to)>(value); });
    }
    if constexpr (F::writes_raw) {
      using S = std::remove_reference_t<decltype(*f.grad_raw)>;
      team.sync();
      for (int m = team.rank; m < count * P; m += team.size)
        f.grad_raw[first * P + m] = S(float_or_double<S>(scratch[m % P * width + m / P]));
    }
  }

 private:
  template <class S>
  HEPOPS_HD static auto float_or_double(double x) {
    if constexpr (sizeof(S) < 4)
      return float(x);
    else
      return x;
  }
};

template <class F>
void run(const Tensor& on, int64_t n, int slots, const F& f) {
  constexpr size_t most = 48 * 1024;
  int threads = 128;
  while (threads > 32 && size_t(slots) * (threads + 1) * sizeof(double) > most) threads /= 2;
  const size_t bytes = size_t(slots) * (threads + 1) * sizeof(double);
  core::for_each_row(on, (n + threads - 1) / threads, bytes, OnBlock<F>{f, n}, threads);
}

#else

constexpr int block_size = 32;

template <class S>
[[gnu::always_inline]] inline S rounded(double x) {
  if constexpr (sizeof(S) < 4)
    return S(float(x));
  else
    return S(x);
}

// Brings the raw parameters of `count` elements to rows of block_size; what stands behind them is 0.
template <class S>
void gather(const Raw<S>& raw, int64_t first, int count, double* scratch) {
  int64_t place[block_size];
  for (int i = 0; i < count; ++i) place[i] = raw.leading.place(first + i);
  const bool even = raw.leading.dims == 1;
  for (int p = 0; p < raw.count; ++p) {
    double* row = scratch + p * block_size;
    if (count == block_size && even) {
      const S* from = raw.data + place[0] + p * raw.stride;
      const int64_t step = raw.leading.stride[0];
#pragma GCC ivdep
      for (int i = 0; i < block_size; ++i) row[i] = double(from[i * step]);
    } else {
      for (int i = 0; i < block_size; ++i) row[i] = i < count ? double(raw.data[place[i] + p * raw.stride]) : 0;
    }
  }
}

template <class F>
void run_block(const F& f, int64_t first, int count, core::Doubles* scratch) {
  using core::Doubles;
  gather(f.raw, first, count, reinterpret_cast<double*>(scratch));
  for (int i = 0; i < count; i += Doubles::size) {
    const int valid = std::min(Doubles::size, count - i);
    const auto load = [&](const auto* from) {
      Doubles x(0.5);  // a number that every domain has
      if (valid == Doubles::size) {
        for (int lane = 0; lane < Doubles::size; ++lane) x.v[lane] = double(from[first + i + lane]);
      } else {
        for (int lane = 0; lane < valid; ++lane) x.v[lane] = double(from[first + i + lane]);
      }
      return x;
    };
    const auto store = [&](auto* to, const Doubles& x) {
      using T = std::remove_reference_t<decltype(*to)>;
      if (valid == Doubles::size) {
        for (int lane = 0; lane < Doubles::size; ++lane) to[first + i + lane] = T(x.v[lane]);
      } else {
        for (int lane = 0; lane < valid; ++lane) to[first + i + lane] = T(x.v[lane]);
      }
    };
    f(Lane<Doubles>{scratch + i / Doubles::size, block_size / Doubles::size}, load, store);
  }
  if constexpr (F::writes_raw) {
    using S = std::remove_reference_t<decltype(*f.grad_raw)>;
    const double* from = reinterpret_cast<const double*>(scratch);
    const int P = f.raw.count;
    for (int i = 0; i < count; ++i)
      for (int p = 0; p < P; ++p) f.grad_raw[(first + i) * P + p] = rounded<S>(from[p * block_size + i]);
  }
}

template <class F>
void run(const Tensor&, int64_t n, int slots, const F& f) {
  torch::stable::parallel_for(0, (n + block_size - 1) / block_size, 64, [&](int64_t begin, int64_t end) {
    const F local = f;
    std::vector<core::Doubles> scratch((slots + 1) * (block_size / core::Doubles::size));
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block_size;
      run_block(local, first, int(std::min<int64_t>(block_size, n - first)), scratch.data());
    }
  });
}

#endif

// The tensors that an operator was given, checked, x dense and raw with few leading dimensions.
struct Inputs {
  Tensor x, raw;
  core::Leading leading;

  template <class S>
  Raw<S> layout() const {
    return {in<S>(raw), leading, raw.size(-1) == 1 ? 1 : raw.stride(-1), int(raw.size(-1))};
  }
};

inline Inputs checked(const std::string& name, const Tensor& x, const Tensor& raw, int64_t parameters) {
  const auto of = [&](const char* what) { return name + ": " + what; };
  core::check_floating(of("x").c_str(), x);
  core::check_floating_or_half(of("raw").c_str(), raw);
  core::check_type(x.scalar_type() == ScalarType::Double ? raw.scalar_type() == ScalarType::Double
                                                         : raw.scalar_type() != ScalarType::Double,
                   name, ": raw has dtype ", toString(raw.scalar_type()), ", which does not go with x of dtype ",
                   toString(x.scalar_type()));
  core::check_value(x.device() == raw.device(), name, ": raw must be on the device of x");
  core::check_value(raw.dim() == x.dim() + 1 && raw.size(-1) == parameters, name, ": raw has shape ", core::Shape{raw},
                    ", expected that of x and ", parameters, " parameters, where x has shape ", core::Shape{x});
  for (int64_t d = 0; d < x.dim(); ++d)
    core::check_value(raw.size(d) == x.size(d), name, ": raw has shape ", core::Shape{raw}, ", but x has shape ",
                      core::Shape{x});
  Inputs inputs{core::contiguous(x), raw, {}};
  if (!core::collapse(raw, 1, inputs.leading)) {
    inputs.raw = core::contiguous(raw);
    core::collapse(inputs.raw, 1, inputs.leading);
  }
  return inputs;
}

// Calls f<T, S>(), T the type of x and S that of the raw parameters.
template <class F>
void for_types(const Tensor& x, const Tensor& raw, const F& f) {
  if (x.scalar_type() == ScalarType::Double) return f.template operator()<double, double>();
  core::for_floating_or_half("raw", raw, [&]<class S, class R>() {
    if constexpr (sizeof(S) <= 4) f.template operator()<float, S>();
  });
}

// -> value, log-derivative
template <class B>
std::tuple<Tensor, Tensor> forward(const B& bijection, const Inputs& inputs, bool inverse) {
  const auto& [x, raw, leading] = inputs;
  Tensor value = core::empty_like(x), logdet = core::empty_like(x);
  if (x.numel() == 0) return {value, logdet};
  for_types(x, raw, [&]<class T, class S>() {
    const Forward<B, T, S> f{bijection, inverse, inputs.layout<S>(), in<T>(x), out<T>(value), out<T>(logdet)};
    run(x, x.numel(), bijection.slots(), f);
  });
  return {value, logdet};
}

// -> the gradients of x (of y, for the inverse, where x is what it gave) and raw
template <class B>
std::tuple<Tensor, Tensor> backward(const char* name, const B& bijection, const Tensor& grad_value,
                                    const Tensor& grad_logdet, const Inputs& inputs, bool inverse) {
  const auto& [x, raw, leading] = inputs;
  core::check_same_shape((std::string(name) + ": grad_value").c_str(), grad_value, x);
  core::check_same_shape((std::string(name) + ": grad_logdet").c_str(), grad_logdet, x);
  const Tensor gv = core::contiguous(grad_value), gl = core::contiguous(grad_logdet);
  Tensor grad_x = core::empty_like(x), grad_raw = core::empty_like(raw);
  if (x.numel() == 0) return {grad_x, grad_raw};
  for_types(x, raw, [&]<class T, class S>() {
    const Backward<B, T, S> f{bijection, inverse,   inputs.layout<S>(), in<T>(x),
                              in<T>(gv), in<T>(gl), out<T>(grad_x),     out<S>(grad_raw)};
    run(x, x.numel(), bijection.slots(), f);
  });
  return {grad_x, grad_raw};
}

}  // namespace hepops::flows
