#include "lartpc/universes.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/huge_pages.h"
#include "core/op.h"
#ifndef __CUDACC__
#include "lartpc/universes_cpu.h"
#endif

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Tensor;

Tensor checked(const char* name, const Tensor& x, ScalarType type, const Tensor& like) {
  core::check_type(x.scalar_type() == type, "universes: ", name, " has dtype ", toString(x.scalar_type()),
                   ", expected ", toString(type));
  core::check_value(x.device() == like.device(), "universes: ", name, " must be on the device of nodes");
  return core::contiguous(x);
}

struct Input {
  Tensor nodes, velocity, pair_offset, pair, job_universe, job_row;
  Plane plane;
  int64_t n, N, rows, jobs, M;
  Lead mode;
};

Input check(const Tensor& nodes, const Tensor& velocity, const Tensor& pair_offset, const Tensor& pair,
            const Tensor& job_universe, const Tensor& job_row, double pitch, double dt, int64_t bins, int64_t reach,
            double cut, int64_t M, int64_t mode) {
  core::check_type(nodes.scalar_type() == ScalarType::Double, "universes: nodes must be float64, got ",
                   toString(nodes.scalar_type()));
  core::check_value(nodes.dim() == 3 && nodes.size(1) == num_fields, "universes: nodes must be (n, ", int(num_fields),
                    ", N), got ", core::Shape{nodes});
  core::check_value(velocity.numel() == nodes.size(0), "universes: velocity must be (n), got ", core::Shape{velocity});
  core::check_value(job_universe.numel() == job_row.numel(), "universes: jobs have two lengths, ", job_universe.numel(),
                    " and ", job_row.numel());
  core::check_value(
      pitch > 0 && dt > 0 && bins > 0 && bins % 2 == 0 && reach >= 0 && cut > 0 && M > 0 && mode >= 0 && mode <= 2,
      "universes: pitch, tick, bins, reach, cut, length or lead is out of range");
  return {core::contiguous(nodes),
          checked("velocity", velocity, ScalarType::Double, nodes),
          checked("pair_offset", pair_offset, ScalarType::Long, nodes),
          checked("pair", pair, ScalarType::Long, nodes),
          checked("job_universe", job_universe, ScalarType::Long, nodes),
          checked("job_row", job_row, ScalarType::Long, nodes),
          {pitch, dt, int(bins), int(reach), cut},
          nodes.size(0),
          nodes.size(2),
          pair_offset.numel() - 1,
          job_row.numel(),
          M,
          Lead(mode)};
}

template <class T>
Universes<T> universes_of(const Input& in) {
  Universes<T> f{};
  f.nodes = core::in<double>(in.nodes);
  f.velocity = core::in<double>(in.velocity);
  f.n = in.n;
  f.N = in.N;
  f.plane = in.plane;
  f.response.M = int(in.M);
  f.response.mode = in.mode;
  f.pair_offset = core::in<int64_t>(in.pair_offset);
  f.pair = core::in<int64_t>(in.pair);
  f.job_universe = core::in<int64_t>(in.job_universe);
  f.job_row = core::in<int64_t>(in.job_row);
  f.jobs = in.jobs;
  return f;
}

#define HEPOPS_UNIVERSES_ARGUMENTS                                                                             \
  const Tensor &nodes, const Tensor &velocity, const Tensor &pair_offset, const Tensor &pair,                  \
      const Tensor &job_universe, const Tensor &job_row, double pitch, double dt, int64_t bins, int64_t reach, \
      double cut, int64_t M, int64_t mode
#define HEPOPS_UNIVERSES_SCHEMA                                                                           \
  "Tensor nodes, Tensor velocity, Tensor pair_offset, Tensor pair, Tensor job_universe, Tensor job_row, " \
  "float pitch, float tick, int bins, int reach, float cut, int length, int lead_mode"
#define HEPOPS_UNIVERSES_PASS \
  nodes, velocity, pair_offset, pair, job_universe, job_row, pitch, dt, bins, reach, cut, M, mode

std::tuple<Tensor, Tensor> windows(HEPOPS_UNIVERSES_ARGUMENTS) {
  const Input in = check(HEPOPS_UNIVERSES_PASS);
  Tensor first = torch::stable::new_empty(in.pair, {in.jobs}), last = torch::stable::new_empty(in.pair, {in.jobs});
  Tensor node_first = torch::stable::new_empty(in.pair, {in.n * in.N}),
         node_last = torch::stable::new_empty(in.pair, {in.n * in.N});
  const Universes<double> f = universes_of<double>(in);
  core::for_each(in.nodes, in.n * in.N,
                 NodeWindow<double>{f, core::out<int64_t>(node_first), core::out<int64_t>(node_last)});
  core::for_each(in.nodes, in.jobs,
                 UniverseWindow<double>{f, core::in<int64_t>(node_first), core::in<int64_t>(node_last),
                                        core::out<int64_t>(first), core::out<int64_t>(last)});
  return {first, last};
}

// weights (2, N, bins_u + bins_v): of the bins, and their slopes with sigma; positive (2 B, 2 B), most (B, B)
Tensor reaches(const Tensor& places, const Tensor& weights, const Tensor& positive, const Tensor& most, int64_t bins_u,
               int64_t extra, double distance, double rest, HEPOPS_UNIVERSES_ARGUMENTS) {
  const Input in = check(HEPOPS_UNIVERSES_PASS);
  core::check_value(in.n == 1, "universes: reach is of one set of nodes, got ", in.n);
  core::check_value(most.dim() == 2 && most.size(0) == most.size(1) && positive.numel() == 4 * most.numel(),
                    "universes: positive and most must be (2 B, 2 B) and (B, B), got ", core::Shape{positive}, ", ",
                    core::Shape{most});
  core::check_value(places.numel() == in.N * place_size && weights.dim() == 3 && weights.size(1) == in.N,
                    "universes: places or weights do not fit the nodes");
  const Tensor at = checked("places", places, ScalarType::Long, nodes);
  const Tensor w = checked("weights", weights, ScalarType::Double, nodes);
  const Tensor P = checked("positive", positive, ScalarType::Double, nodes);
  const Tensor m = checked("most", most, ScalarType::Double, nodes);
  const int64_t pairs = in.pair.numel();
  Tensor reach_of = torch::stable::new_empty(in.nodes, {pairs});
  core::for_each(in.nodes, pairs,
                 PairReach<double>{{core::in<double>(in.nodes), in.N},
                                   in.plane,
                                   reinterpret_cast<const Place*>(core::in<int64_t>(at)),
                                   core::in<double>(w),
                                   core::in<double>(w) + in.N * w.size(2),
                                   core::in<double>(P),
                                   core::in<double>(m),
                                   bins_u,
                                   w.size(2) - bins_u,
                                   extra,
                                   m.size(0),
                                   distance,
                                   rest,
                                   core::in<int64_t>(in.pair),
                                   core::out<double>(reach_of)});
  return reach_of;
}

// (pairs), for the rows in job_row, each once
Tensor potentials(HEPOPS_UNIVERSES_ARGUMENTS) {
  const Input in = check(HEPOPS_UNIVERSES_PASS);
  Tensor created = torch::stable::new_zeros(in.nodes, {in.pair.numel()});
  if (in.mode == point)
    core::for_each(in.nodes, in.jobs,
                   CreatedPotential{{core::in<double>(in.nodes), in.N},
                                    in.plane,
                                    core::in<int64_t>(in.pair_offset),
                                    core::in<int64_t>(in.pair),
                                    core::in<int64_t>(in.job_row),
                                    core::out<double>(created)});
  return created;
}

// charge (N, n), reach (pairs) -> (rows, n)
Tensor bound(const Tensor& charges, const Tensor& reach, const Tensor& pair_offset, const Tensor& pair,
             int64_t squares) {
  const Tensor q = checked("charge", charges, ScalarType::Double, charges);
  const Tensor r = checked("reach", reach, ScalarType::Double, charges);
  const Tensor o = checked("pair_offset", pair_offset, ScalarType::Long, charges);
  const Tensor p = checked("pair", pair, ScalarType::Long, charges);
  const int64_t rows = o.numel() - 1;
  Tensor result = torch::stable::new_empty(q, {rows, q.size(1)});
  core::for_each(q, rows,
                 RowBound{core::in<double>(q), core::in<double>(r), core::in<int64_t>(o), core::in<int64_t>(p), squares,
                          q.size(1), core::out<double>(result)});
  return result;
}

// The bins of every node in double and their slopes with sigma: (2, N, bins_u + bins_v).
struct WeighBins {
  Nodes nodes;
  Plane plane;
  const Place* places;
  double* weights;
  int64_t bins_u, bins_v;
  HEPOPS_HD void operator()(int64_t i) const {
    const Place& at = places[i];
    axis(i, nodes(u, i), nodes(width_u, i), at.bin_u, at.bins_u, 0);
    axis(i, nodes(v, i), nodes(width_v, i), at.bin_v, at.bins_v, bins_u);
  }
  HEPOPS_HD void axis(int64_t i, double centre, double width, int64_t first, int64_t n, int64_t shift) const {
    double w[4 * max_bins];
    share_bins(w, max_bins, true, centre, nodes(sigma, i), width, plane.bin(), first, n);
    double* at = weights + i * (bins_u + bins_v) + shift;
    for (int64_t b = 0; b < n; ++b) {
      at[b] = w[b];
      at[nodes.n * (bins_u + bins_v) + b] = w[2 * max_bins + b];
    }
  }
};

Tensor bin_weights(const Tensor& nodes, const Tensor& places, double pitch, int64_t bins, int64_t bins_u,
                   int64_t bins_v) {
  const Tensor x = checked("nodes", nodes, ScalarType::Double, nodes);
  const Tensor at = checked("places", places, ScalarType::Long, nodes);
  const int64_t N = x.size(1);
  core::check_value(bins_u <= max_bins && bins_v <= max_bins, "universes: a node covers ", std::max(bins_u, bins_v),
                    " bins, more than ", max_bins, ": is its diffusion right?");
  Tensor weights = torch::stable::new_empty(x, {2, N, bins_u + bins_v});
  core::for_each(x, N,
                 WeighBins{{core::in<double>(x), N},
                           {pitch, 1, int(bins), 0, 1},
                           reinterpret_cast<const Place*>(core::in<int64_t>(at)),
                           core::out<double>(weights),
                           bins_u,
                           bins_v});
  return weights;
}

#ifndef __CUDACC__

// A universe of its own kind is one piece of work; those that differ in charges alone share it, by rows.
template <class T>
void run_in_shares(const Universes<T>& f, const int64_t* like, int64_t rows) {
  constexpr int64_t rows_together = 256;
  std::map<int64_t, std::vector<int64_t>> kinds;
  for (int64_t m = 0; m < f.n; ++m) kinds[like[m]].push_back(m);
  struct Share {
    const std::vector<int64_t>* members;
    int64_t from, to;
  };
  std::vector<Share> shares;
  for (const auto& [_, members] : kinds) {
    const int64_t step = members.size() > 1 ? rows_together : std::max<int64_t>(rows, 1);
    for (int64_t row = 0; row < rows; row += step) shares.push_back({&members, row, std::min(rows, row + step)});
  }
  torch::stable::parallel_for(0, int64_t(shares.size()), /*grain_size=*/1, [&](int64_t from, int64_t to) {
    UniverseScratch<T> scratch(f);
    for (int64_t k = from; k < to; ++k) {
      const auto& members = *shares[k].members;
      if (members.size() > 1) {
        scratch.rows_of(members, shares[k].from, shares[k].to);
        continue;
      }
      scratch.begin(members[0]);
      const int64_t* end = f.job_universe + f.jobs;
      for (const int64_t* job = std::lower_bound(f.job_universe, end, members[0]); job < end && *job == members[0];
           ++job)
        scratch.row(job - f.job_universe);
    }
  });
}

#endif

// likes (n): universes of one number differ in their charges alone
Tensor currents(const Tensor& first, const Tensor& offset, const Tensor& U, const Tensor& which, const Tensor& basis,
                const Tensor& X, const Tensor& D, const Tensor& potential, const Tensor& created, const Tensor& like,
                double dz, int64_t bins_u, int64_t bins_v, int64_t taps, int64_t total, bool plain,
                HEPOPS_UNIVERSES_ARGUMENTS) {
  const Input in = check(HEPOPS_UNIVERSES_PASS);
  core::check_value(bins_u <= max_bins && bins_v <= max_bins, "universes: a node covers ", std::max(bins_u, bins_v),
                    " bins, more than ", max_bins, ": is its diffusion right?");
  core::check_value(taps <= max_taps, "universes: a node arrives over ", taps, " ticks, more than ", max_taps,
                    ": is its diffusion right?");
  core::check_value(U.dim() == 4 && U.size(1) == U.size(2) && U.size(3) % 16 == 0,
                    "universes: U must be (tables, B, B, 16 m), got ", core::Shape{U});
  core::check_value(basis.dim() == 2 && basis.size(0) <= U.size(3) && basis.size(1) > M && basis.size(1) % 32 == 0,
                    "universes: basis must be (rank <= L, a multiple of 32 > length), got ", core::Shape{basis});
  core::check_value(which.numel() == in.n && first.numel() == in.jobs && offset.numel() == in.jobs + 1 &&
                        created.numel() == in.pair.numel(),
                    "universes: which, first, offset or created has a wrong length");
  core::check_same_kind("universes: basis", basis, U);
  core::check_same_kind("universes: potential", potential, U);
  core::check_same_kind("universes: X", X, U);
  core::check_same_kind("universes: D", D, U);
  core::check_value(X.dim() == 3 && X.size(1) == U.size(3) && X.size(2) % 16 == 0 && D.dim() == 2 &&
                        D.size(0) <= X.size(2) && D.size(1) == basis.size(1),
                    "universes: X must be (ticks, L, 16 m) and D (at most 16 m, ticks of the basis), got ",
                    core::Shape{X}, ", ", core::Shape{D});
  const Tensor table_of = checked("which", which, ScalarType::Long, nodes);
  const Tensor begin = checked("first", first, ScalarType::Long, nodes);
  const Tensor place_of = checked("offset", offset, ScalarType::Long, nodes);
  core::check_value(like.numel() == in.n, "universes: like must be (n), got ", core::Shape{like});
  const Tensor likes = checked("like", like, ScalarType::Long, nodes);
  const Tensor phi = checked("created", created, ScalarType::Double, nodes);
  const Tensor u_table = core::contiguous(U), b = core::contiguous(basis), p = core::contiguous(potential);
  const Tensor x_table = core::contiguous(X), d_table = core::contiguous(D);
  Tensor values = core::in_huge_pages(torch::stable::new_empty(u_table, {total}));
  core::for_floating("universes: U", u_table, [&]<class T>() {
    Universes<T> f = universes_of<T>(in);
    f.table = core::in<int64_t>(table_of);
    f.response.B = int(u_table.size(1));
    f.response.stride = int(b.size(1));
    f.response.potential = core::in<T>(p);
    f.response.P = int(p.size(2));
    f.response.dz = dz;
    f.U = core::in<T>(u_table);
    f.basis = core::in<T>(b);
    f.L = u_table.size(3);
    f.rank = b.size(0);
    f.X = core::in<T>(x_table);
    f.D = core::in<T>(d_table);
    f.ticks = x_table.size(0);
    f.columns = x_table.size(2);
    f.curves = d_table.size(0);
    f.created = core::in<double>(phi);
    f.first = core::in<int64_t>(begin);
    f.offset = core::in<int64_t>(place_of);
    f.values = core::out<T>(values);
    f.bins_u_max = bins_u;
    f.bins_v_max = bins_v;
    f.taps_max = taps;
#ifndef __CUDACC__
    if (!plain) {
      run_in_shares(f, core::in<int64_t>(likes), in.rows);
      return;
    }
#else
    static_cast<void>(plain);  // on a GPU there is the plain form alone
#endif
    Tensor places = torch::stable::new_empty(in.pair, {f.n * f.N * place_size});
    Tensor weights = torch::stable::new_empty(u_table, {f.n * f.N * f.per_node()});
    auto* at = reinterpret_cast<Place*>(core::out<int64_t>(places));
    core::for_each(in.nodes, f.n * f.N, WeighUniverses<T>{f, at, core::out<T>(weights)});
    core::for_each_row(in.nodes, in.jobs, UniverseRow<T>::scratch(int(M), f.L),
                       UniverseRow<T>{f, at, core::in<T>(weights)}, 160);
  });
  return values;
}

const core::Operators operators{
    core::op<windows>("_universe_windows(" HEPOPS_UNIVERSES_SCHEMA ") -> (Tensor, Tensor)"),
    core::op<bin_weights>("_universe_bin_weights(Tensor nodes, Tensor places, float pitch, int bins, int bins_u, int "
                          "bins_v) -> Tensor"),
    core::op<reaches>("_universe_reach(Tensor places, Tensor weights, Tensor positive, Tensor most, int bins_u, int "
                      "extra, float distance, float rest, " HEPOPS_UNIVERSES_SCHEMA ") -> Tensor"),
    core::op<potentials>("_universe_potentials(" HEPOPS_UNIVERSES_SCHEMA ") -> Tensor"),
    core::op<bound>("_universe_bound(Tensor charge, Tensor reach, Tensor pair_offset, Tensor pair, int squares) -> "
                    "Tensor"),
    core::op<currents>("_universe_currents(Tensor first, Tensor offset, Tensor U, Tensor which, Tensor basis, Tensor "
                       "X, Tensor D, Tensor potential, Tensor created, Tensor like, float dz, int bins_u, int bins_v, "
                       "int taps, int total, bool plain, " HEPOPS_UNIVERSES_SCHEMA ") -> Tensor"),
};

}  // namespace
}  // namespace hepops::lartpc
