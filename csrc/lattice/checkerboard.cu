#include "lattice/checkerboard.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/huge_pages.h"
#include "core/op.h"
#ifndef __CUDACC__
#include "lattice/checkerboard_cpu.h"
#endif

namespace hepops::lattice {
namespace {

using core::check_same_kind, core::check_value, core::in, core::out, core::Tensor;
using Sizes = std::vector<int64_t>;

#ifdef __CUDACC__

template <class T>
struct Seen {  // f
  Lattice lattice;
  const T* x;
  T* f;
  int parity;
  HEPOPS_HD void operator()(int64_t i) const { f[i] = lattice.parity(i % lattice.sites) == parity ? T(0) : x[i]; }
};

template <class T>
struct Square {
  const T* x;
  T* y;
  HEPOPS_HD void operator()(int64_t i) const { y[i] = x[i] * x[i]; }
};

// One configuration's coupling: y, and the sum of s from site to site in double.
template <class T>
struct CoupleAll {
  Lattice lattice;
  const T *x, *raw_s, *raw_t;  // at raw[b * raw_stride + site]
  int64_t raw_stride;
  T* y;
  double* logdet;
  int parity;
  double limit;
  bool inverse;
  HEPOPS_HD void operator()(int64_t b) const {
    double sum = 0;
    for (int64_t site = 0; site < lattice.sites; ++site) {
      const int64_t i = b * lattice.sites + site, r = b * raw_stride + site;
      if (lattice.parity(site) != parity) {
        y[i] = x[i];
        continue;
      }
      const Coupled<T> c = couple(x[i], raw_s[r], raw_t[r], limit, inverse);
      y[i] = c.value, sum += double(c.s);
    }
    logdet[b] = inverse ? -sum : sum;
  }
};

template <class T>
struct CoupleAllBackward {
  Lattice lattice;
  const T *at, *raw_s, *raw_t, *grad_y;
  int64_t raw_stride;
  const double* grad_logdet;
  T *grad_x, *grad_s, *grad_t, *x;
  int parity;
  double limit;
  bool inverse, from_y;
  HEPOPS_HD void operator()(int64_t i) const {
    const int64_t b = i / lattice.sites, site = i % lattice.sites, r = b * raw_stride + site;
    T here = at[i];
    if (lattice.parity(site) != parity) {
      grad_x[i] = grad_y[i], grad_s[r] = grad_t[r] = T(0), x[i] = here;
      return;
    }
    if (from_y) here = couple(here, raw_s[r], raw_t[r], limit, !inverse).value;
    const auto d = couple_backward(here, raw_s[r], raw_t[r], grad_y[i], T(grad_logdet[b]), limit, inverse);
    grad_x[i] = d.x, grad_s[r] = d.raw_s, grad_t[r] = d.raw_t, x[i] = here;
  }
};

template <class T>
struct TimesSlope {  // g A'(h), and the part through h^2
  const T *h, *more;
  T* g;
  Activation activation;
  HEPOPS_HD void operator()(int64_t i) const {
    const T all = more ? g[i] + T(2) * h[i] * more[i] : g[i];
    g[i] = all * activation_slope(activation, h[i]);
  }
};

template <class T>
struct AddFrozen {
  Lattice lattice;
  const T *g, *more, *f;
  T* grad_x;
  int parity;
  HEPOPS_HD void operator()(int64_t i) const {
    if (lattice.parity(i % lattice.sites) == parity) return;
    grad_x[i] += more ? g[i] + T(2) * f[i] * more[i] : g[i];
  }
};

// The layer on tensors (batch, channels, sites), one functor after the other.
template <class T>
struct OnGpu {
  const Board& board;
  int64_t batch;
  const Tensor& like;
  const T* parameters;
  std::vector<Tensor> h;  // h[0] = f, ..., then raw; of the odd form raw_s and raw_t apart
  Tensor square;

  int64_t sites() const { return board.lattice.sites; }
  Tensor fields(int64_t channels) const { return torch::stable::new_empty(like, {batch * channels * sites()}); }
  const T* weight(int l) const { return parameters + board.first_weight(l); }
  Shape last_shape() const {
    Shape s = board.shape(board.layers - 1);
    s.out = 1;
    return s;
  }

  Tensor convolved(const Shape& shape, const Tensor& x, const T* w, const T* bias, Activation A,
                   bool transposed) const {
    const Tensor y = fields(transposed ? shape.in : shape.out);
    core::for_each(like, y.numel(), ConvolveOne<T>{shape, in<T>(x), w, bias, out<T>(y), A, transposed});
    return y;
  }

  void run(const Tensor& x) {
    h = {fields(1)};
    core::for_each(like, batch * sites(), Seen<T>{board.lattice, in<T>(x), out<T>(h[0]), board.parity});
    const int last = board.layers - 1;
    for (int l = 0; l < last; ++l) {
      const T* const bias = board.odd ? nullptr : parameters + board.first_bias(l);
      h.push_back(convolved(board.shape(l), h[l], weight(l), bias, board.activation, false));
    }
    const T* const bias = parameters + board.first_bias(last);
    if (!board.odd) {
      h.push_back(convolved(board.shape(last), h[last], weight(last), bias, Activation::none, false));
      return;
    }
    square = fields(board.widths[last]);
    core::for_each(like, square.numel(), Square<T>{in<T>(h[last]), out<T>(square)});
    const Shape shape = last_shape();
    h.push_back(convolved(shape, square, weight(last), bias, Activation::none, false));
    h.push_back(convolved(shape, h[last], weight(last) + shape.in * shape.taps(), nullptr, Activation::none, false));
  }
  const T* raw_s() const { return in<T>(h[board.layers]); }
  const T* raw_t() const { return board.odd ? in<T>(h[board.layers + 1]) : raw_s() + sites(); }
  int64_t raw_stride() const { return board.odd ? sites() : 2 * sites(); }

  void gradient(const Shape& shape, const Tensor& g, const Tensor& s, T* weights, T* bias) const {
    const int64_t parts = std::clamp<int64_t>(batch, 1, 256);
    WeightGradient<T> f{shape, batch, parts, in<T>(g), in<T>(s), nullptr};
    const Tensor sums = torch::stable::new_empty(like, {parts * f.numbers()}, core::ScalarType::Double);
    f.sums = out<double>(sums);
    core::for_each(like, parts * f.numbers(), f);
    const int64_t n = f.numbers() - shape.out;
    core::for_each(like, n, AddParts<T>{f.numbers(), parts, f.sums, weights});
    if (bias) core::for_each(like, shape.out, AddParts<T>{f.numbers(), parts, f.sums + n, bias});
  }
};

template <class T>
void forward(const Board& board, const Tensor& x, const Tensor& parameters, const Tensor& y, const Tensor& logdet) {
  OnGpu<T> net{board, x.size(0), x, in<T>(parameters), {}, {}};
  net.run(x);
  core::for_each(x, x.size(0),
                 CoupleAll<T>{board.lattice, in<T>(x), net.raw_s(), net.raw_t(), net.raw_stride(), out<T>(y),
                              out<double>(logdet), board.parity, board.limit, board.inverse});
}

template <class T>
void backward(const Board& board, const Tensor& at, const Tensor& parameters, const Tensor& grad_y,
              const Tensor& grad_logdet, bool from_y, T* grad_x, T* to, T* x) {
  OnGpu<T> net{board, at.size(0), at, in<T>(parameters), {}, {}};
  net.run(at);
  const int last = board.layers - 1;
  const int64_t n = at.numel();
  const Tensor scratch = net.fields(1);
  Tensor g = net.fields(board.odd ? 1 : 2), g_t = board.odd ? net.fields(1) : g, more;
  T* const grad_t = board.odd ? out<T>(g_t) : out<T>(g) + net.sites();
  core::for_each(at, n,
                 CoupleAllBackward<T>{board.lattice, in<T>(at), net.raw_s(), net.raw_t(), in<T>(grad_y),
                                      net.raw_stride(), in<double>(grad_logdet), grad_x, out<T>(g), grad_t,
                                      x ? x : out<T>(scratch), board.parity, board.limit, board.inverse, from_y});
  const Shape shape = board.odd ? net.last_shape() : board.shape(last);
  const T* const w = net.weight(last);
  const int64_t half = shape.in * shape.taps();
  T* const first = to ? to + board.first_weight(last) : nullptr;
  T* const bias = to ? to + board.first_bias(last) : nullptr;
  if (board.odd) {
    if (to)
      net.gradient(shape, g, net.square, first, bias), net.gradient(shape, g_t, net.h[last], first + half, nullptr);
    more = net.convolved(shape, g, w, nullptr, Activation::none, true);
    g = net.convolved(shape, g_t, w + half, nullptr, Activation::none, true);
  } else {
    if (to) net.gradient(shape, g, net.h[last], first, bias);
    g = net.convolved(shape, g, w, nullptr, Activation::none, true);
  }
  for (int l = last - 1; l >= 0; --l) {
    const T* const by_square = board.odd && l == last - 1 ? in<T>(more) : nullptr;
    core::for_each(at, g.numel(), TimesSlope<T>{in<T>(net.h[l + 1]), by_square, out<T>(g), board.activation});
    if (to)
      net.gradient(board.shape(l), g, net.h[l], to + board.first_weight(l),
                   board.odd ? nullptr : to + board.first_bias(l));
    g = net.convolved(board.shape(l), g, net.weight(l), nullptr, Activation::none, true);
  }
  const T* const by_square = board.odd && last == 0 ? in<T>(more) : nullptr;
  core::for_each(at, n, AddFrozen<T>{board.lattice, in<T>(g), by_square, in<T>(net.h[0]), grad_x, board.parity});
}

#else

template <class T>
void forward(const Board& board, const Tensor& x, const Tensor& parameters, const Tensor& y, const Tensor& logdet) {
  BoardForward<T>{board, x.size(0), in<T>(x), in<T>(parameters), out<T>(y), out<double>(logdet)}.run(core::Threads{});
}

template <class T>
void backward(const Board& board, const Tensor& at, const Tensor& parameters, const Tensor& grad_y,
              const Tensor& grad_logdet, bool from_y, T* grad_x, T* grad_parameters, T* x) {
  BoardBackward<T>{
      board,  at.size(0),      in<T>(at), in<T>(parameters), in<T>(grad_y), in<double>(grad_logdet), from_y,
      grad_x, grad_parameters, x}
      .run(core::Threads{});
}

#endif

Board checked(const char* name, const Tensor& x, const Tensor& parameters, const Sizes& kernel, const Sizes& hidden,
              int64_t parity, int64_t activation, bool odd, double limit, bool inverse) {
  const int64_t D = x.dim() - 1;
  core::check_floating((std::string(name) + ": x").c_str(), x);
  check_value(D >= 1 && D <= most_dims, name, ": x must have shape (B, L_1, ..., L_D), D = 1 to 4, got ",
              core::Shape{x});
  check_value(int64_t(kernel.size()) == D && hidden.size() <= 14, name,
              ": a kernel for each direction, 14 layers at most");
  Board b{Lattice(x.sizes().data() + 1, int(D))};
  for (int64_t mu = 0; mu < D; ++mu) {
    check_value(x.size(mu + 1) > 0 && x.size(mu + 1) % 2 == 0, name, ": a checkerboard needs even extents, got ",
                core::Shape{x});
    check_value(kernel[mu] > 0 && kernel[mu] % 2 == 1, name, ": the kernel must be odd, got ", kernel[mu]);
    b.kernel[mu] = kernel[mu];
  }
  b.layers = int(hidden.size()) + 1;
  for (size_t l = 0; l < hidden.size(); ++l) {
    check_value(hidden[l] > 0, name, ": hidden channels must be positive, got ", hidden[l]);
    b.widths[l + 1] = hidden[l];
  }
  b.widths[b.layers] = 2;
  check_value(activation >= 0 && activation < int(Activation::silu), name, ": activation must be 0 to 2, got ",
              activation);
  b.parity = int(parity & 1), b.odd = odd, b.activation = Activation(activation), b.limit = limit, b.inverse = inverse;
  check_same_kind((std::string(name) + ": parameters").c_str(), parameters, x);
  check_value(parameters.dim() == 1 && parameters.size(0) == b.parameters(), name, ": parameters must have shape (",
              b.parameters(), "), got ", core::Shape{parameters});
  return b;
}

// -> y, ln |det|
std::tuple<Tensor, Tensor> affine(const Tensor& x, const Tensor& parameters, Sizes kernel, Sizes hidden, int64_t parity,
                                  int64_t activation, bool odd, double limit, bool inverse) {
  const Board board = checked("checkerboard", x, parameters, kernel, hidden, parity, activation, odd, limit, inverse);
  const Tensor from = core::contiguous(x), p = core::contiguous(parameters);
  Tensor y = core::empty_like(from), logdet = torch::stable::new_empty(x, {x.size(0)}, core::ScalarType::Double);
  if (x.numel() > 0)
    core::for_floating("checkerboard: x", x, [&]<class T>() { forward<T>(board, from, p, y, logdet); });
  return {y, logdet};
}

// -> the gradients of x and of the parameters (empty if not wanted), and x, where y is given (empty if not)
std::tuple<Tensor, Tensor, Tensor> affine_backward(const Tensor& grad_y, const Tensor& grad_logdet, const Tensor& at,
                                                   const Tensor& parameters, Sizes kernel, Sizes hidden, int64_t parity,
                                                   int64_t activation, bool odd, double limit, bool inverse,
                                                   bool from_y, bool wants_parameters) {
  const Board board =
      checked("checkerboard_backward", at, parameters, kernel, hidden, parity, activation, odd, limit, inverse);
  core::check_same_shape("checkerboard_backward: grad_y", grad_y, at);
  check_value(grad_logdet.dim() == 1 && grad_logdet.size(0) == at.size(0) &&
                  grad_logdet.scalar_type() == core::ScalarType::Double,
              "checkerboard_backward: grad_logdet must have shape (B), in float64");
  const Tensor from = core::contiguous(at), p = core::contiguous(parameters), G = core::contiguous(grad_y),
               g = core::contiguous(grad_logdet);
  Tensor grad_x = core::empty_like(from);
  Tensor grad_parameters = torch::stable::new_empty(at, {wants_parameters ? board.parameters() : 0});
  Tensor x = from_y ? core::empty_like(from) : torch::stable::new_empty(at, {0});
  core::for_floating("checkerboard_backward: x", at, [&]<class T>() {
    backward<T>(board, from, p, G, g, from_y, out<T>(grad_x), wants_parameters ? out<T>(grad_parameters) : nullptr,
                from_y ? out<T>(x) : nullptr);
  });
  return {grad_x, grad_parameters, x};
}

#define HEPOPS_BOARD_SCHEMA \
  "Tensor parameters, int[] kernel, int[] hidden, int parity, int activation, bool odd, float limit, bool inverse"

const core::Operators operators{
    core::op<affine>("_lattice_checkerboard_affine(Tensor x, " HEPOPS_BOARD_SCHEMA ") -> (Tensor, Tensor)"),
    core::op<affine_backward>(
        "_lattice_checkerboard_affine_backward(Tensor grad_y, Tensor grad_logdet, Tensor at, " HEPOPS_BOARD_SCHEMA
        ", bool from_y, bool wants_parameters) -> (Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
