#include "sparse/interpolate.h"

#include <bit>
#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/op.h"
#include "core/scatter_add.h"
#include "core/sort_pairs.h"
#include "sparse/lanes.h"

namespace hepops::sparse {
namespace {

using core::ScalarType;
using core::Team;
using core::Tensor;

constexpr int64_t chunk = 64;  // queries or rows that a team takes

// Channels that one member holds in registers: on the CPU a few vectors.
#ifdef __CUDACC__
constexpr int held = 1;
#else
constexpr int held = 16;
#endif

// out[c] = sum_e weight(e) row(e)[c] over first <= e < last, in double, for the channels of one lane
template <class S, class Weight, class Row>
HEPOPS_HD void weighted_sum(const Lanes& on, int64_t channels, int64_t first, int64_t last, S* out,
                            const Weight& weight, const Row& row) {
  for (int64_t c = on.lane * held; c < channels; c += on.lanes * held) {
    double sum[held] = {};
    if (c + held <= channels) {
      for (int64_t e = first; e < last; ++e) {
        const S* from = row(e);
        if (!from) continue;
        const double w = weight(e);
        for (int k = 0; k < held; ++k) sum[k] += w * double(from[c + k]);
      }
      for (int k = 0; k < held; ++k) out[c + k] = S(sum[k]);
    } else {
      const int rest = int(channels - c);
      for (int64_t e = first; e < last; ++e) {
        const S* from = row(e);
        if (!from) continue;
        const double w = weight(e);
        for (int k = 0; k < rest; ++k) sum[k] += w * double(from[c + k]);
      }
      for (int k = 0; k < rest; ++k) out[c + k] = S(sum[k]);
    }
  }
}

template <class T>
struct Weights {
  const T* fractions;  // (Q, dimension)
  T* weights;          // (Q, 2^dimension)
  int dimension;
  HEPOPS_HD void operator()(int64_t e) const {
    const int64_t q = e >> dimension;
    weights[e] = corner_weight(fractions + q * dimension, int(e & ((1 << dimension) - 1)), dimension);
  }
};

template <class S, class T>
struct Forward {
  const S* x;
  const int64_t* rows;
  const T* weights;
  S* y;
  int64_t queries, corners, channels;
  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Lanes on(team, (channels + held - 1) / held);
    const int64_t end = core::min((item + 1) * chunk, queries);
    for (int64_t q = item * chunk + on.group; q < end; q += on.groups)
      weighted_sum(
          on, channels, q * corners, (q + 1) * corners, y + q * channels,
          [=, this](int64_t e) { return double(weights[e]); },
          [=, this](int64_t e) { return rows[e] < 0 ? nullptr : x + rows[e] * channels; });
  }
};

// rows that do not exist come last
struct Keys {
  const int64_t* rows;
  int64_t* keys;
  int64_t num_rows;
  HEPOPS_HD void operator()(int64_t e) const { keys[e] = rows[e] < 0 ? num_rows : rows[e]; }
};

struct Starts {
  const int64_t* keys;  // ascending
  int64_t* starts;
  int64_t entries;
  HEPOPS_HD void operator()(int64_t row) const { starts[row] = core::lower_bound(keys, entries, row); }
};

// grad_x[i] = sum of w_e grad[q_e] over the corners e that are row i, in the order of the queries
template <class S, class T>
struct BackwardToRows {
  const S* grad;
  const int64_t *starts, *entries;
  const T* weights;
  S* grad_x;
  int64_t num_rows, channels;
  int dimension;
  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Lanes on(team, (channels + held - 1) / held);
    const int64_t end = core::min((item + 1) * chunk, num_rows);
    for (int64_t i = item * chunk + on.group; i < end; i += on.groups)
      weighted_sum(
          on, channels, starts[i], starts[i + 1], grad_x + i * channels,
          [=, this](int64_t n) { return double(weights[entries[n]]); },
          [=, this](int64_t n) { return grad + (entries[n] >> dimension) * channels; });
  }
};

// dots[q, j] = grad[q] . x[rows[q, j]]
template <class S, class T>
struct Dots {
  const S *x, *grad;
  const int64_t* rows;
  double* dots;
  int64_t channels;
  int dimension;
  HEPOPS_HD void operator()(int64_t e) const {
    constexpr int lanes = 8;
    double sum[lanes] = {}, total = 0;
    if (rows[e] >= 0) {
      const S *a = x + rows[e] * channels, *b = grad + (e >> dimension) * channels;
      int64_t c = 0;
      for (; c + lanes <= channels; c += lanes)
        for (int k = 0; k < lanes; ++k) sum[k] += double(a[c + k]) * double(b[c + k]);
      for (; c < channels; ++c) total += double(a[c]) * double(b[c]);
    }
    for (int k = 0; k < lanes; ++k) total += sum[k];
    dots[e] = total;
  }
};

// grad_f[q, a] = sum_j dots[q, j] dw_j / df_a
template <class T>
struct BackwardToFractions {
  const T* fractions;
  const double* dots;
  T* grad_fractions;
  int dimension;
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t q = k / dimension;
    const int axis = int(k % dimension);
    double sum = 0;
    for (int j = 0; j < 1 << dimension; ++j)
      sum += dots[(q << dimension) + j] * double(corner_slope(fractions + q * dimension, j, axis, dimension));
    grad_fractions[k] = T(sum);
  }
};

struct Problem {
  Tensor x, rows, fractions;
  int64_t queries, corners, channels;
  int dimension;
};

Problem problem(const Tensor& x, const Tensor& rows, const Tensor& fractions) {
  core::check_floating_or_half("interpolate: features", x);
  core::check_value(x.dim() == 2, "interpolate: features must be (N, C), got shape ", core::Shape{x});
  core::check_int64("interpolate: rows", rows);
  const auto kind = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  core::check_type(fractions.scalar_type() == kind, "interpolate: fractions has dtype ",
                   toString(fractions.scalar_type()), ", expected ", toString(kind));
  core::check_value(fractions.dim() == 2 && 1 <= fractions.size(1) && fractions.size(1) <= max_dimension,
                    "interpolate: fractions must be (Q, D) with D = 1 to 6, got shape ", core::Shape{fractions});
  const int64_t corners = int64_t(1) << fractions.size(1);
  core::check_value(rows.dim() == 2 && rows.size(0) == fractions.size(0) && rows.size(1) == corners,
                    "interpolate: rows must be (", fractions.size(0), ", ", corners, "), got shape ",
                    core::Shape{rows});
  core::check_value(rows.device() == x.device() && fractions.device() == x.device(),
                    "interpolate: rows and fractions must be on the device of the features");
  Problem p{core::contiguous(x), core::contiguous(rows), core::contiguous(fractions), rows.size(0), corners,
            x.size(1),           int(fractions.size(1))};
  if (x.is_cpu()) {  // on a GPU the rows are not read back
    const int64_t* row = core::in<int64_t>(p.rows);
    for (int64_t e = 0; e < p.rows.numel(); ++e)
      core::check_value(-1 <= row[e] && row[e] < x.size(0), "interpolate: rows must be in [-1, ", x.size(0), "), got ",
                        row[e], " at (", e / corners, ", ", e % corners, ")");
  }
  return p;
}

template <class T>
Tensor weights_of(const Problem& p) {
  const Tensor weights = torch::stable::new_empty(p.fractions, {p.queries, p.corners});
  core::for_each(p.x, weights.numel(), Weights<T>{core::in<T>(p.fractions), core::out<T>(weights), p.dimension});
  return weights;
}

Tensor forward(const Tensor& x, const Tensor& rows, const Tensor& fractions) {
  const Problem p = problem(x, rows, fractions);
  const Tensor y = torch::stable::new_empty(p.x, {p.queries, p.channels});
  if (y.numel() == 0) return y;
  core::for_floating_or_half("interpolate: features", x, [&]<class S, class T>() {
    const Tensor weights = weights_of<T>(p);
    core::for_each_row(p.x, (p.queries + chunk - 1) / chunk, 0,
                       Forward<S, T>{core::in<S>(p.x), core::in<int64_t>(p.rows), core::in<T>(weights), core::out<S>(y),
                                     p.queries, p.corners, p.channels});
  });
  return y;
}

template <class S, class T>
void to_rows(const Problem& p, const Tensor& grad, const Tensor& grad_x) {
  const int64_t num_rows = p.x.size(0), entries = p.rows.numel();
  const Tensor keys = core::empty_like(p.rows), starts = torch::stable::new_empty(p.rows, {num_rows + 1});
  core::for_each(p.x, entries, Keys{core::in<int64_t>(p.rows), core::out<int64_t>(keys), num_rows});
  const auto [sorted, payload] =
      core::sort_pairs(torch::stable::view(keys, {entries}), {}, std::bit_width(uint64_t(num_rows)));
  core::for_each(p.x, num_rows + 1, Starts{core::in<int64_t>(sorted), core::out<int64_t>(starts), entries});
  const Tensor weights = weights_of<T>(p);
  core::for_each_row(
      p.x, (num_rows + chunk - 1) / chunk, 0,
      BackwardToRows<S, T>{core::in<S>(grad), core::in<int64_t>(starts), core::in<int64_t>(payload),
                           core::in<T>(weights), core::out<S>(grad_x), num_rows, p.channels, p.dimension});
}

template <class S, class T>
void to_fractions(const Problem& p, const Tensor& grad, const Tensor& grad_fractions) {
  const Tensor dots = torch::stable::new_empty(p.fractions, {p.queries, p.corners}, ScalarType::Double);
  core::for_each(p.x, dots.numel(),
                 Dots<S, T>{core::in<S>(p.x), core::in<S>(grad), core::in<int64_t>(p.rows), core::out<double>(dots),
                            p.channels, p.dimension});
  core::for_each(p.x, grad_fractions.numel(),
                 BackwardToFractions<T>{core::in<T>(p.fractions), core::in<double>(dots), core::out<T>(grad_fractions),
                                        p.dimension});
}

// -> the gradients of the features and of the fractions; one that is not wanted is (0)
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& rows, const Tensor& fractions,
                                    bool want_x, bool want_fractions) {
  const Problem p = problem(x, rows, fractions);
  core::check_same_kind("interpolate: grad", grad, x);
  core::check_value(grad.dim() == 2 && grad.size(0) == p.queries && grad.size(1) == p.channels,
                    "interpolate: grad has shape ", core::Shape{grad}, ", expected (", p.queries, ", ", p.channels,
                    ")");
  const Tensor g = core::contiguous(grad);
  const Tensor grad_x = want_x ? core::empty_like(p.x) : torch::stable::new_empty(p.x, {0});
  const Tensor grad_fractions =
      want_fractions ? core::empty_like(p.fractions) : torch::stable::new_empty(p.fractions, {0});
  core::for_floating_or_half("interpolate: features", x, [&]<class S, class T>() {
    if (grad_x.numel() > 0) to_rows<S, T>(p, g, grad_x);
    if (grad_fractions.numel() > 0) to_fractions<S, T>(p, g, grad_fractions);
  });
  return {grad_x, grad_fractions};
}

const core::Operators operators{
    core::op<forward>("sparse_interpolate(Tensor x, Tensor rows, Tensor fractions) -> Tensor"),
    core::op<backward>("_sparse_interpolate_backward(Tensor grad, Tensor x, Tensor rows, Tensor fractions, "
                       "bool want_x, bool want_fractions) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::sparse
