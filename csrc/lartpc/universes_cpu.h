#pragma once
// universes.h for a CPU core: one universe at a time, its tables and weights in the second-level cache.
//
// A row's nodes are contracted in batches and added up in S, whose lanes are l; then S meets the ticks. The curves B_l,
// shifted by 0 ... G - 1 ticks, are again nearly the same few curves D_c (30 instead of 120 for float and G = 8):
//
//   C[g][c] = sum_{j < G, l} S[g G + j][l] X[j][l][c],    current[g G + p] += sum_c C[g][c] D_c[p],
//
// two products of matrices, of four groups of ticks against a block of X or D; the early ticks p need the first D_c
// alone. Rows of few nodes over many ticks, and nodes created within reach of the plane, whose curve begins late, go
// the way of the plain form.
#include <new>

#include "core/simd.h"
#include "lartpc/blob_cpu.h"
#include "lartpc/universes.h"
#include "lartpc/waveforms_cpu.h"

namespace hepops::lartpc {

// Vectors that begin on a line of the cache: a register's load or store that crosses one costs two.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, size_t) { ::operator delete(p, line); }
  bool operator==(const LineAllocator&) const { return true; }
};
template <class T>
using Lines = std::vector<T, LineAllocator<T>>;

template <class T>
class UniverseScratch {
 public:
  using V = Simd<T>;
  static constexpr int pad = max_taps + 4 * V::lanes;

  explicit UniverseScratch(const Universes<T>& f)
      : f_(f),
        places_(f.N),
        weighed_(f.N),
        weights_(f.N * f.per_node() + 2 * V::lanes),
        columns_(2 * batch),
        alpha_(batch * f.L),
        blocks_((f.rank + V::lanes - 1) / V::lanes),
        table_(blocks_ > 1 ? blocks_ * f.response.B * f.response.B * V::lanes : 0),
        curve_(f.response.stride + 2 * pad),
        C_(4 * f.columns),
        used_(f.response.stride / V::lanes),
        before_(f.response.stride * f.L) {
    const int64_t stride = f.response.stride, L = f.L;
    for (int64_t l = 0; l < f.rank; ++l) {
      double sum = 0;
      for (int64_t p = 0; p < stride; ++p) before_[p * L + l] = T(sum += f.basis[l * stride + p]);
    }
    for (int64_t c = 0; c < f.curves; ++c)
      for (int64_t p = 0; p < stride; ++p)
        if (f.D[c * stride + p] != 0) used_[p / V::lanes] = c + 1;
  }

  void begin(int64_t universe) {
    universe_ = universe;
    nodes_ = f_.nodes_of(universe);
    gather_table(f_.table_of(universe));
    std::fill(weighed_.begin(), weighed_.end(), char(0));
  }

  // Universes that differ in their charges alone, on the rows [from, to): the curve of a unit charge is made once.
  void rows_of(const std::vector<int64_t>& members, int64_t from, int64_t to) {
    begin(members[0]);
    const int64_t* end = f_.job_universe + f_.jobs;
    std::vector<int64_t> next;
    for (const int64_t m : members) {
      const auto [first, last] = std::equal_range(f_.job_universe, end, m);
      const int64_t begin = first - f_.job_universe, stop = last - f_.job_universe;
      next.push_back(std::lower_bound(f_.job_row + begin, f_.job_row + stop, from) - f_.job_row);
    }
    std::vector<int64_t> jobs;
    for (int64_t row = from; row < to; ++row) {
      jobs.clear();
      for (size_t m = 0; m < members.size(); ++m)
        if (next[m] < f_.jobs && f_.job_universe[next[m]] == members[m] && f_.job_row[next[m]] == row)
          jobs.push_back(next[m]++);
      if (!jobs.empty()) shared_row(row, jobs);
    }
  }

  void row(int64_t job) {
    const int64_t row = f_.job_row[job], from = f_.pair_offset[row], to = f_.pair_offset[row + 1];
    first_ = f_.first[job];
    low_ = INT64_MAX;
    int64_t high = INT64_MIN;
    for (int64_t j = from; j < to; ++j) {
      const Place& at = weighed(f_.pair[j] / squares());
      if (at.start > 0) continue;
      low_ = std::min(low_, at.first);
      high = std::max(high, at.first + 2 * at.half + 2);
    }
    const int64_t length = f_.offset[job + 1] - f_.offset[job];
    out_.assign(length + f_.response.stride + f_.ticks + 8 * V::lanes, T(0));
    constexpr int ticks_per_node = 7;  // above, measured, the way of the plain form is the shorter one
    summed_ = high > low_ && high - low_ < ticks_per_node * (to - from);
    const int64_t ticks = (high - low_ + f_.ticks - 1) / f_.ticks * f_.ticks;
    if (summed_) S_.assign(ticks * f_.L, T(0));
    for (int64_t j = from; j < to; j += batch) add(j, int(std::min<int64_t>(batch, to - j)));
    if (summed_) meet_ticks(ticks);
    std::copy_n(out_.data(), length, f_.values + f_.offset[job]);
  }

 private:
  void shared_row(int64_t row, const std::vector<int64_t>& jobs) {
    const int64_t from = f_.pair_offset[row], to = f_.pair_offset[row + 1];
    const int64_t size = (f_.response.stride + f_.taps_max + V::lanes - 1) / V::lanes * V::lanes + V::lanes;
    first_ = f_.first[jobs[0]];
    for (int64_t j = from; j < to; ++j) weighed(f_.pair[j] / squares());
    curves_.assign((to - from) * size, T(0));
    summed_ = false;
    for (int64_t j = from; j < to; j += batch) {
      const int n = int(std::min<int64_t>(batch, to - j));
      contract_batch(j, n);
      for (int k = 0; k < n; ++k)
        curve(j + k, alpha_.data() + k * f_.L, columns_[2 * k], columns_[2 * k + 1], T(1),
              curves_.data() + (j + k - from) * size);
    }
    const int64_t length = f_.offset[jobs[0] + 1] - f_.offset[jobs[0]];
    for (const int64_t job : jobs) {
      out_.assign(length + size, T(0));
      const Nodes nodes = f_.nodes_of(f_.job_universe[job]);
      for (int64_t j = from; j < to; ++j) {
        const int64_t i = f_.pair[j] / squares();
        const Place& at = places_[i];
        const T q = T(nodes(charge, i) / f_.plane.dt);
        const T* y = curves_.data() + (j - from) * size;
        T* out = out_.data() + at.first - first_;
        const int64_t ticks = at.last - at.first;
        for (int64_t o = 0; o < ticks; o += V::lanes) V::store(out + o, V::load(out + o) + q * V::load(y + o));
      }
      std::copy_n(out_.data(), length, f_.values + f_.offset[job]);
    }
  }

  const Universes<T> f_;
  int64_t universe_ = 0, first_ = 0, low_ = 0;
  bool summed_ = false;
  Nodes nodes_{};
  const T* U_ = nullptr;  // the universe's table, (blocks, B, B, lanes)
  std::vector<Place> places_;
  std::vector<char> weighed_;
  std::vector<T> weights_;
  std::vector<Column<T>> columns_;
  Lines<T> alpha_;
  int64_t blocks_;  // of lanes of l
  Lines<T> table_, curve_, S_, C_, out_, curves_;
  std::vector<int64_t> used_;  // how many of the first D_c a register of ticks needs
  Lines<T> before_;            // (stride, L): sums of the curves over all ticks up to p

  // The numbers that a pass over the bins reads lie together: a part of l, which the first-level cache holds for all
  // nodes of a batch.
  void gather_table(const T* U) {
    U_ = U;
    if (blocks_ == 1 && f_.L == V::lanes) return;
    const int64_t bins = f_.response.B * f_.response.B;
    table_.resize(blocks_ * bins * V::lanes);
    U_ = table_.data();
    for (int64_t b = 0; b < bins; ++b)
      for (int64_t k = 0; k < blocks_; ++k)
        V::store(table_.data() + (k * bins + b) * V::lanes, V::load(U + b * f_.L + k * V::lanes));
  }

  int64_t squares() const { return f_.plane.side() * f_.plane.side(); }
  Weights<const T> weights_of(int64_t i) const { return f_.in_turn(weights_.data() + i * f_.per_node()); }

  const Place& weighed(int64_t i) {
    if (!weighed_[i]) {
      weighed_[i] = 1;
      places_[i] = f_.place_of(universe_, i);
      packed::weigh(f_.in_turn(weights_.data() + i * f_.per_node()), nodes_, i, places_[i], f_.plane);
    }
    return places_[i];
  }

  // alpha[l] = sum_x w_x sum_y w_y U[x][y][l] for a register of l
  template <int Rows>
  [[gnu::always_inline]] void contract_rows(const T* table, const Column<T>& cu, const Column<T>& cv, int64_t x,
                                            typename V::type& alpha) const {
    typename V::type sum[Rows] = {};
    const int64_t B = f_.response.B, next = B * V::lanes;
    const T* r = table + ((cu.low + x) * B + cv.low) * V::lanes;
    for (int64_t y = 0; y < cv.n; ++y, r += V::lanes) {
      const T w = cv.w[0][y];
      core::unroll<Rows>(HEPOPS_UNROLLED(n) { sum[n] += w * V::load(r + n * next); });
    }
    core::unroll<Rows>(HEPOPS_UNROLLED(n) { alpha += cu.w[0][x + n] * sum[n]; });
  }

  void contract(const T* table, const Column<T>& cu, const Column<T>& cv, T* alpha) const {
    typename V::type sum = {};
    int64_t x = 0;
    for (; x + 8 <= cu.n; x += 8) contract_rows<8>(table, cu, cv, x, sum);
    if (x + 4 <= cu.n) contract_rows<4>(table, cu, cv, x, sum), x += 4;
    if (x + 2 <= cu.n) contract_rows<2>(table, cu, cv, x, sum), x += 2;
    if (x < cu.n) contract_rows<1>(table, cu, cv, x, sum);
    V::store(alpha, sum);
  }

  void add(int64_t j, int n) {
    contract_batch(j, n);
    for (int k = 0; k < n; ++k) arrive(j + k, alpha_.data() + k * f_.L, columns_[2 * k], columns_[2 * k + 1]);
  }

  void contract_batch(int64_t j, int n) {
    const int side = f_.plane.side();
    for (int k = 0; k < n; ++k) {
      const int64_t i = f_.pair[j + k] / squares(), slot = f_.pair[j + k] % squares();
      const Place& at = places_[i];
      const Weights<const T> w = weights_of(i);
      const int64_t cu = pixel_under(nodes_(u, i), f_.plane) + slot / side - f_.plane.reach;
      const int64_t cv = pixel_under(nodes_(v, i), f_.plane) + slot % side - f_.plane.reach;
      columns_[2 * k].fold(w.u, w.size, 1, at.bin_u, at.bins_u, cu, f_.plane.bins, f_.response.B);
      columns_[2 * k + 1].fold(w.v, w.size, 1, at.bin_v, at.bins_v, cv, f_.plane.bins, f_.response.B);
    }
    const int64_t size = f_.response.B * f_.response.B * V::lanes;
    for (int64_t block = 0; block < blocks_; ++block)
      for (int k = 0; k < n; ++k)
        contract(U_ + block * size, columns_[2 * k], columns_[2 * k + 1], alpha_.data() + k * f_.L + block * V::lanes);
  }

  // phi_w where the node was created
  T created(int64_t j, int64_t i, const Column<T>& cu, const Column<T>& cv) const {
    if (f_.response.mode == point) return T(f_.created[j]);
    T sum = 0;
    if (f_.response.mode == table)
      for (int64_t x = 0; x < cu.n; ++x)
        for (int64_t y = 0; y < cv.n; ++y) {
          const int64_t bin = (cu.low + x) * f_.response.B + cv.low + y;
          sum += cu.w[0][x] * cv.w[0][y] * T(tabulated_potential(f_.response, bin, nodes_(depth, i))[0]);
        }
    return sum;
  }

  // S[t][l] += q alpha[l] W[t] for W registers of l
  template <int W>
  [[gnu::always_inline]] void splat(const T* alpha, T q, const T* w, int64_t taps, T* S) const {
    typename V::type part[W];
    core::unroll<W>(HEPOPS_UNROLLED(k) { part[k] = q * V::load(alpha + k * V::lanes); });
    for (int64_t t = 0; t < taps; ++t, S += f_.L)
      core::unroll<W>(HEPOPS_UNROLLED(k) { V::store(S + k * V::lanes, V::load(S + k * V::lanes) + w[t] * part[k]); });
  }

  void arrive(int64_t j, T* alpha, const Column<T>& cu, const Column<T>& cv) {
    const int64_t i = f_.pair[j] / squares();
    const Place& at = places_[i];
    const Weights<const T> w = weights_of(i);
    const int64_t taps = 2 * at.half + 2;
    const T q = T(nodes_(charge, i) / f_.plane.dt);
    if (summed_ && at.start == 0) {
      alpha[0] -= created(j, i, cu, cv);
      T* S = S_.data() + (at.first - low_) * f_.L;
      int64_t block = 0;
      for (; block + 4 <= blocks_; block += 4) splat<4>(alpha + block * V::lanes, q, w.t, taps, S + block * V::lanes);
      for (; block < blocks_; ++block) splat<1>(alpha + block * V::lanes, q, w.t, taps, S + block * V::lanes);
      return;
    }
    curve(j, alpha, cu, cv, q, out_.data() + at.first - first_);
  }

  // a[p] = sum_l alpha[l] B_l[p] for W registers of p
  template <int W>
  [[gnu::always_inline]] void make_curve(const T* alpha, int64_t p, T* a) const {
    typename V::type sum[W] = {};
    const T* basis = f_.basis + p;
    for (int64_t l = 0; l < f_.rank; ++l, basis += f_.response.stride)
      core::unroll<W>(HEPOPS_UNROLLED(k) { sum[k] += alpha[l] * V::load(basis + k * V::lanes); });
    core::unroll<W>(HEPOPS_UNROLLED(k) { V::store(a + p + k * V::lanes, sum[k]); });
  }

  // out[o] += q (a W)[o] from the node's first tick on, as the plain form
  void curve(int64_t j, const T* alpha, const Column<T>& cu, const Column<T>& cv, T q, T* out) {
    const int64_t i = f_.pair[j] / squares();
    const Place& at = places_[i];
    const Weights<const T> w = weights_of(i);
    const int64_t taps = 2 * at.half + 2;
    const T there = created(j, i, cu, cv);
    T* a = curve_.data() + pad;
    int64_t p = at.start / V::lanes * V::lanes;  // what was induced before is wanted as a sum alone
    constexpr int wide = 4;                      // sums in flight
    for (; p + wide * V::lanes <= f_.response.stride; p += wide * V::lanes) make_curve<wide>(alpha, p, a);
    for (; p < f_.response.stride; p += V::lanes) make_curve<1>(alpha, p, a);
    typename V::type sum = {};
    for (int64_t l = 0; l < f_.L; l += V::lanes)
      sum += V::load(alpha + l) * V::load(before_.data() + at.start * f_.L + l);
    const T before = T(V::sum(sum));
    std::fill_n(a + at.start - taps, taps, T(0));
    a[at.start] = before - there;
    const int64_t end = f_.response.M + taps;
    out -= at.start;
    for (int64_t o = at.start; o < end; o += wide * V::lanes) {
      typename V::type y[wide] = {};
      const T* from = a + o;
      for (int64_t t = 0; t < taps; ++t, --from)
        core::unroll<wide>(HEPOPS_UNROLLED(k) { y[k] += w.t[t] * V::load(from + k * V::lanes); });
      core::unroll<wide>(HEPOPS_UNROLLED(k) { add_to(out, o + k * V::lanes, end, q * y[k]); });
    }
  }

  // C[g][c] = sum_{j,l} S[g G + j][l] X[j][l][c] for `groups` groups of G ticks and W registers of c
  template <int groups, int W>
  [[gnu::always_inline]] void compress(const T* S, const T* X, T* C) const {
    typename V::type sum[groups * W] = {};
    const int64_t L = f_.L, G = f_.ticks, K = f_.columns;
    for (int64_t j = 0; j < G; ++j)
      for (int64_t l = 1; l < f_.rank; ++l) {
        const T* x = X + (j * L + l) * K;
        typename V::type b[W];
        core::unroll<W>(HEPOPS_UNROLLED(k) { b[k] = V::load(x + k * V::lanes); });
        core::unroll<groups * W>(HEPOPS_UNROLLED(n) { sum[n] += S[((n / W) * G + j) * L + l] * b[n % W]; });
      }
    core::unroll<groups * W>(HEPOPS_UNROLLED(n) { V::store(C + (n / W) * K + (n % W) * V::lanes, sum[n]); });
  }

  // out[g G + p] += C[g][c] D_c[p]
  template <int groups, int W>
  [[gnu::always_inline]] void meet(const T* C, int64_t k0, T* out) const {
    typename V::type sum[groups * W] = {};
    const int64_t stride = f_.response.stride, G = f_.ticks, K = f_.columns;
    const int64_t curves = *std::max_element(used_.begin() + k0, used_.begin() + k0 + W);
    const T* D = f_.D + k0 * V::lanes;
    for (int64_t c = 0; c < curves; ++c, D += stride) {
      typename V::type b[W];
      core::unroll<W>(HEPOPS_UNROLLED(k) { b[k] = V::load(D + k * V::lanes); });
      core::unroll<groups * W>(HEPOPS_UNROLLED(n) { sum[n] += C[(n / W) * K + c] * b[n % W]; });
    }
    core::unroll<groups>([&](auto g) __attribute__((always_inline)) {
      core::unroll<W>([&](auto k) __attribute__((always_inline)) {
        T* at = out + g * G + k * V::lanes;
        V::store(at, V::load(at) + sum[g * W + k]);
      });
    });
  }

  template <int groups>
  void meet_groups(const T* S, T* out) {
    const int64_t registers = f_.response.stride / V::lanes;
    int64_t c = 0;
    for (; c + 4 * V::lanes <= f_.columns; c += 4 * V::lanes) compress<groups, 4>(S, f_.X + c, C_.data() + c);
    for (; c + 2 * V::lanes <= f_.columns; c += 2 * V::lanes) compress<groups, 2>(S, f_.X + c, C_.data() + c);
    for (; c < f_.columns; c += V::lanes) compress<groups, 1>(S, f_.X + c, C_.data() + c);
    int64_t k = 0;
    for (; k + 5 <= registers; k += 5) meet<groups, 5>(C_.data(), k, out + k * V::lanes);
    for (; k < registers; ++k) meet<groups, 1>(C_.data(), k, out + k * V::lanes);
  }

  void meet_ticks(int64_t ticks) {
    T* out = out_.data() + low_ - first_;
    const int64_t G = f_.ticks;
    for (int64_t j = 0; j < ticks; ++j) out[j] += S_[j * f_.L];  // l = 0 is the tick p = 0 alone
    int64_t j = 0;
    for (; j + 4 * G <= ticks; j += 4 * G) meet_groups<4>(S_.data() + j * f_.L, out + j);
    for (; j < ticks; j += G) meet_groups<1>(S_.data() + j * f_.L, out + j);
  }
};

}  // namespace hepops::lartpc
