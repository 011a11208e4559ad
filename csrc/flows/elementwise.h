#pragma once
// A bijection (bijection.h) over tensors: blocks of elements, whose raw parameters are brought side by side in double
// into scratch, changed there in place, and for a gradient written back. Raw parameters have any strides: they are read
// once, in whatever order they lie in.
//
// A block is 64 elements in the first cache on a CPU, a few packs of SIMD lanes; on a GPU it is the elements of one
// block of threads in shared memory, which the threads fill together.
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/collapse.h"
#include "core/for_each_row.h"
#include "core/huge_pages.h"
#include "flows/bijection.h"

namespace hepops::flows {

using core::in, core::out, core::ScalarType, core::Tensor;

// What a bijection computes in where x is of type T: double, or T itself where it is well enough.
template <class B, class T>
using Number = std::conditional_t<B::wide, double, T>;

// A number of one type as another, halves by way of float.
template <class To, class From>
HEPOPS_HD To as(From x) {
  if constexpr (sizeof(To) < 4 || sizeof(From) < 4)
    return To(float(x));
  else
    return To(x);
}

// Raw parameter p of element i lies at data[leading.place(i) + p * stride].
template <class S>
struct Raw {
  const S* data = nullptr;
  core::Leading leading{1, {1}, {0}};
  int64_t stride = 0;
  int count = 0;
};

template <class B, class T, class S>
struct Forward {
  static constexpr bool writes_raw = false;
  using R = Number<B, T>;
  B bijection;
  bool inverse;
  Raw<S> raw;
  const T* x;
  T *value, *logdet;

  template <class N, class Load, class Store>
  HEPOPS_HD void operator()(const Lane<N>& lane, const Load& load, const Store& store) const {
    const auto image = apply(bijection, load(x), lane, inverse);
    store(value, image.value);
    store(logdet, image.logdet);
  }
};

template <class B, class T, class S>
struct Backward {
  static constexpr bool writes_raw = true;
  using R = Number<B, T>;
  B bijection;
  bool inverse;
  Raw<S> raw;
  const T *x, *grad_value, *grad_logdet;
  T* grad_x;
  S* grad_raw;  // (n, P)

  template <class N, class Load, class Store>
  HEPOPS_HD void operator()(const Lane<N>& lane, const Load& load, const Store& store) const {
    const Image<N> grad{load(grad_value), load(grad_logdet)};
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
    using R = typename F::R;
    R* scratch = reinterpret_cast<R*>(team.memory);
    const int64_t width = team.size + 1, first = block * team.size;
    const int count = int(n - first < team.size ? n - first : team.size), P = f.raw.count;
    const bool by_parameter = f.raw.stride != 1;  // the order that memory is read in
    for (int m = team.rank; m < count * P; m += team.size) {
      const int element = by_parameter ? m % count : m / P, p = by_parameter ? m / count : m % P;
      const int64_t place = f.raw.leading.place(first + element) + p * f.raw.stride;
      scratch[p * width + element] = as<R>(f.raw.data[place]);
    }
    team.sync();
    if (team.rank < count) {
      const int64_t i = first + team.rank;
      const auto load = [i](const auto* from) { return R(from[i]); };
      const auto store = [i](auto* to, R value) { to[i] = std::remove_reference_t<decltype(*to)>(value); };
      f(Lane<R>{scratch + team.rank, width}, load, store);
    }
    if constexpr (F::writes_raw) {
      using S = std::remove_reference_t<decltype(*f.grad_raw)>;
      team.sync();
      for (int m = team.rank; m < count * P; m += team.size)
        f.grad_raw[first * P + m] = as<S>(scratch[m % P * width + m / P]);
    }
  }
};

template <class F>
void run(const Tensor& on, int64_t n, int slots, const F& f) {
  constexpr size_t most = 48 * 1024;
  int threads = 128;
  while (threads > 32 && size_t(slots) * (threads + 1) * sizeof(typename F::R) > most) threads /= 2;
  const size_t bytes = size_t(slots) * (threads + 1) * sizeof(typename F::R);
  core::for_each_row(on, (n + threads - 1) / threads, bytes, OnBlock<F>{f, n}, threads);
}

#else

constexpr int block_size = 64;

// Numbers one by one: without the barrier the loop becomes SIMD gathers, which are slow on many processors.
inline void one_by_one() { asm volatile("" ::: "memory"); }

// Brings the raw parameters of `count` elements to rows of block_size; what stands behind them is 0.
template <class S, class R>
void gather(const Raw<S>& raw, int64_t first, int count, R* scratch) {
  using P = core::PackedOf<R>;
  int64_t place[block_size];
  for (int i = 0; i < count; ++i) place[i] = raw.leading.place(first + i);
  for (int i = count; i < block_size; ++i)
    for (int p = 0; p < raw.count; ++p) scratch[p * block_size + i] = 0;
  const auto one = [&](int i, int p) {
    scratch[p * block_size + i] = as<R>(raw.data[place[i] + p * raw.stride]);
    one_by_one();
  };
  const int64_t inner = raw.leading.size[raw.leading.dims - 1];
  constexpr std::make_integer_sequence<int, P::size> lanes;
  if (raw.count == 2 && raw.stride == 1 && count == block_size && place[count - 1] - place[0] == 2 * (count - 1) &&
      raw.leading.dims == 1) {
    for (int i = 0; i < block_size; i += P::size) {
      P a = P::load(raw.data + place[0] + 2 * i), b = P::load(raw.data + place[0] + 2 * i + P::size);
      core::apart(a, b, lanes);
      a.store(scratch + i), b.store(scratch + block_size + i);
    }
  } else if (raw.stride == 1) {
    const int squares = raw.count / P::size * P::size, packs = count / P::size * P::size;
    for (int i = 0; i < packs; i += P::size)
      for (int p = 0; p < squares; p += P::size)
        core::transpose<P>([&](int n) { return P::load(raw.data + place[i + n] + p); },
                           [&](int n, P v) { v.store(scratch + (p + n) * block_size + i); });
    for (int i = 0; i < count; ++i)
      for (int p = i < packs ? squares : 0; p < raw.count; ++p) one(i, p);
  } else if (raw.leading.stride[raw.leading.dims - 1] == 1 && first % inner + count <= inner) {  // channels first
    for (int p = 0; p < raw.count; ++p)
      for (int i = 0; i < count; ++i) scratch[p * block_size + i] = as<R>(raw.data[place[0] + p * raw.stride + i]);
  } else {
    for (int p = 0; p < raw.count; ++p)
      for (int i = 0; i < count; ++i) one(i, p);
  }
}

// And back, element by element.
template <class S, class R>
void scatter(const R* scratch, int64_t first, int count, int parameters, S* to) {
  using P = core::PackedOf<R>;
  if (parameters == 2 && count == block_size) {
    constexpr std::make_integer_sequence<int, P::size> lanes;
    for (int i = 0; i < block_size; i += P::size) {
      P a = P::load(scratch + i), b = P::load(scratch + block_size + i);
      core::in_turn(a, b, lanes);
      a.store(to + 2 * (first + i)), b.store(to + 2 * (first + i) + P::size);
    }
    return;
  }
  const int squares = parameters / P::size * P::size, packs = count / P::size * P::size;
  for (int i = 0; i < packs; i += P::size)
    for (int p = 0; p < squares; p += P::size)
      core::transpose<P>([&](int n) { return P::load(scratch + (p + n) * block_size + i); },
                         [&](int n, P v) { v.store(to + (first + i + n) * parameters + p); });
  for (int i = 0; i < count; ++i)
    for (int p = i < packs ? squares : 0; p < parameters; ++p)
      to[(first + i) * parameters + p] = as<S>(scratch[p * block_size + i]), one_by_one();
}

template <class F, class P>
void run_block(const F& f, int64_t first, int count, P* scratch) {
  using R = typename F::R;
  gather(f.raw, first, count, reinterpret_cast<R*>(scratch));
  for (int i = 0; i < count; i += P::size) {
    const int valid = std::min(P::size, count - i);
    const auto load = [&](const auto* from) {
      if (valid == P::size) return P::load(from + first + i);
      P x(0.5);  // a number that every domain has
      for (int lane = 0; lane < valid; ++lane) x.v[lane] = R(from[first + i + lane]);
      return x;
    };
    const auto store = [&](auto* to, const P& x) {
      using T = std::remove_reference_t<decltype(*to)>;
      if (valid == P::size) return x.store(to + first + i);
      for (int lane = 0; lane < valid; ++lane) to[first + i + lane] = T(x.v[lane]);
    };
    f(Lane<P>{scratch + i / P::size, block_size / P::size}, load, store);
  }
  if constexpr (F::writes_raw) scatter(reinterpret_cast<const R*>(scratch), first, count, f.raw.count, f.grad_raw);
}

template <class F>
void run(const Tensor&, int64_t n, int slots, const F& f) {
  using P = core::PackedOf<typename F::R>;
  torch::stable::parallel_for(0, (n + block_size - 1) / block_size, 64, [&](int64_t begin, int64_t end) {
    const F local = f;
    std::vector<P> scratch((slots + 1) * (block_size / P::size));
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
  Tensor value = core::in_huge_pages(core::empty_like(x)), logdet = core::in_huge_pages(core::empty_like(x));
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
  Tensor grad_x = core::in_huge_pages(core::empty_like(x)), grad_raw = core::in_huge_pages(core::empty_like(raw));
  if (x.numel() == 0) return {grad_x, grad_raw};
  for_types(x, raw, [&]<class T, class S>() {
    const Backward<B, T, S> f{bijection, inverse,   inputs.layout<S>(), in<T>(x),
                              in<T>(gv), in<T>(gl), out<T>(grad_x),     out<S>(grad_raw)};
    run(x, x.numel(), bijection.slots(), f);
  });
  return {grad_x, grad_raw};
}

}  // namespace hepops::flows
