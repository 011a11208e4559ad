#include "lartpc/waveforms.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/op.h"
#ifndef __CUDACC__
#include "lartpc/waveforms_cpu.h"
#endif

namespace hepops::lartpc {
namespace {

using core::Scalar;
using core::ScalarType;
using core::Tensor;

// What every operator here is given, checked once and made contiguous.
struct Input {
  Tensor nodes, velocity, places, pair_offset, pair, node_row, first, offset, r, rv, lead, leadv, potential;
  Plane plane;
  int64_t N, rows, total, bins_u, bins_v, taps;
  int M;
  Lead mode;
  double dz;

  int64_t set_size() const { return bins_u + bins_v + taps; }
};

Tensor check_kind(const char* name, const Tensor& x, ScalarType type, const Tensor& like) {
  core::check_type(x.scalar_type() == type, "waveforms: ", name, " has dtype ", toString(x.scalar_type()),
                   ", expected ", toString(type));
  core::check_value(x.device() == like.device(), "waveforms: ", name, " must be on the device of nodes");
  return core::contiguous(x);
}

void check_nodes(const Tensor& nodes, double pitch, double dt, int64_t bins, int64_t reach, double cut, int64_t M,
                 int64_t mode) {
  core::check_type(nodes.scalar_type() == ScalarType::Double, "waveforms: nodes must be float64, got ",
                   toString(nodes.scalar_type()));
  core::check_value(nodes.dim() == 2 && nodes.size(0) == num_fields, "waveforms: nodes must be (", int(num_fields),
                    ", N), got ", core::Shape{nodes});
  core::check_value(pitch > 0, "waveforms: pitch must be positive [cm], got ", pitch);
  core::check_value(dt > 0, "waveforms: tick must be positive [us], got ", dt);
  core::check_value(bins > 0 && bins % 2 == 0, "waveforms: bins per pixel must be even and positive, got ", bins);
  core::check_value(reach >= 0 && reach <= 16, "waveforms: reach must be 0 to 16 pixels, got ", reach);
  core::check_value(cut > 0, "waveforms: cut must be positive [sigma], got ", cut);
  core::check_value(M > 0, "waveforms: length must be positive [ticks], got ", M);
  core::check_value(mode >= 0 && mode <= 2, "waveforms: lead must be 0, 1 or 2, got ", mode);
}

struct PlaceNode {
  Nodes nodes;
  Plane plane;
  Scalar<double> velocity;
  int M;
  Lead mode;
  Place* places;
  HEPOPS_HD void operator()(int64_t i) const { places[i] = place(nodes, i, plane, velocity, M, mode); }
};

Tensor places(const Tensor& nodes, const Tensor& velocity, double pitch, double dt, int64_t bins, int64_t reach,
              double cut, int64_t M, int64_t mode) {
  check_nodes(nodes, pitch, dt, bins, reach, cut, M, mode);
  core::check_scalar("waveforms: velocity", velocity, nodes);
  const Tensor x = core::contiguous(nodes);
  const int64_t N = x.size(1);
  Tensor result = torch::stable::new_empty(x, {N, place_size}, ScalarType::Long);
  static_assert(sizeof(Place) == place_size * sizeof(int64_t));
  core::for_each(x, N,
                 PlaceNode{{core::in<double>(x), N},
                           {pitch, dt, int(bins), int(reach), cut},
                           velocity,
                           int(M),
                           Lead(mode),
                           reinterpret_cast<Place*>(core::out<int64_t>(result))});
  return result;
}

// Where the charge of a node ends: the share of each pixel around it, and what falls beside the plane.
struct Collect {
  Nodes nodes;
  Plane plane;
  const Place* places;
  const int64_t* pixels;  // (N, 2)
  double* shares;         // (N, side^2), or null
  double* lost;           // (N)

  // Share of a node's charge in the bins [low, high), along one axis: as share_bins makes it.
  HEPOPS_HD double between(Field centre, Field width, int64_t i, int64_t first, int64_t n, int64_t low,
                           int64_t high) const {
    const auto below = [&](int64_t b) {
      if (b <= first) return 0.0;
      if (b >= first + n) return 1.0;
      return share_below(double(b) * plane.bin() - nodes(centre, i), nodes(sigma, i), nodes(width, i)).value;
    };
    return below(high) - below(low);
  }
  HEPOPS_HD double along_u(int64_t i, int64_t low, int64_t high) const {
    return between(u, width_u, i, places[i].bin_u, places[i].bins_u, low, high);
  }
  HEPOPS_HD double along_v(int64_t i, int64_t low, int64_t high) const {
    return between(v, width_v, i, places[i].bin_v, places[i].bins_v, low, high);
  }

  HEPOPS_HD void operator()(int64_t i) const {
    const Place& at = places[i];
    const int64_t nu = pixels[2 * i] * plane.bins, nv = pixels[2 * i + 1] * plane.bins;
    const bool inside = at.bin_u >= 0 && at.bin_u + at.bins_u <= nu && at.bin_v >= 0 && at.bin_v + at.bins_v <= nv;
    lost[i] = inside ? 0.0 : nodes(charge, i) * (1 - along_u(i, 0, nu) * along_v(i, 0, nv));
    if (shares == nullptr) return;
    const int side = plane.side();
    for (int slot = 0; slot < side * side; ++slot) {
      const int64_t cu = (pixel_under(nodes(u, i), plane) + slot / side - plane.reach) * plane.bins;
      const int64_t cv = (pixel_under(nodes(v, i), plane) + slot % side - plane.reach) * plane.bins;
      const bool exists = cu >= 0 && cu < nu && cv >= 0 && cv < nv;
      shares[i * side * side + slot] = exists ? along_u(i, cu, cu + plane.bins) * along_v(i, cv, cv + plane.bins) : 0.0;
    }
  }
};

std::tuple<Tensor, Tensor> collect(const Tensor& nodes, const Tensor& places, const Tensor& pixels, double pitch,
                                   int64_t bins, int64_t reach, double cut, bool shares) {
  check_nodes(nodes, pitch, 1, bins, reach, cut, 1, 0);
  const int64_t N = nodes.size(1), side = 2 * reach + 1;
  core::check_value(places.numel() == N * place_size && pixels.numel() == 2 * N,
                    "waveforms: places or pixels do not "
                    "fit the nodes, got ",
                    core::Shape{places}, " and ", core::Shape{pixels});
  const Tensor x = core::contiguous(nodes), at = check_kind("places", places, ScalarType::Long, nodes);
  const Tensor n = check_kind("pixels", pixels, ScalarType::Long, nodes);
  Tensor share = torch::stable::new_empty(x, {shares ? N : 0, side * side}), lost = torch::stable::new_empty(x, {N});
  core::for_each(x, N,
                 Collect{{core::in<double>(x), N},
                         {pitch, 1, int(bins), int(reach), cut},
                         reinterpret_cast<const Place*>(core::in<int64_t>(at)),
                         core::in<int64_t>(n),
                         shares ? core::out<double>(share) : nullptr,
                         core::out<double>(lost)});
  return {share, lost};
}

template <class T>
struct WeighNode {
  Nodes nodes;
  const Place* places;
  Plane plane;
  T* weights;
  int64_t bins_u, bins_v, taps, per_node;
  bool slopes;
  HEPOPS_HD void operator()(int64_t i) const {
    T* w = weights + i * per_node;
    weigh(Weights<T>{w, w + bins_u, w + bins_u + bins_v, bins_u + bins_v + taps}, slopes, nodes, i, places[i], plane);
  }
};

template <class T>
Tensor weigh_all(const Input& in, bool slopes) {
  const int64_t per_node = in.set_size() * (slopes ? 4 : 1);
  Tensor weights = torch::stable::new_empty(in.r, {in.N, per_node});
  const WeighNode<T> f{{core::in<double>(in.nodes), in.N},
                       reinterpret_cast<const Place*>(core::in<int64_t>(in.places)),
                       in.plane,
                       core::out<T>(weights),
                       in.bins_u,
                       in.bins_v,
                       in.taps,
                       per_node,
                       slopes};
#ifdef __CUDACC__
  core::for_each(in.r, in.N, f);
#else
  torch::stable::parallel_for(0, in.N, /*grain_size=*/64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) f(i);
  });
#endif
  return weights;
}

template <class T>
WaveRow<T> rows_of(const Input& in, const Tensor& weights, T* values, T* tangents, const Tangents& tangent) {
  const auto* places = reinterpret_cast<const Place*>(core::in<int64_t>(in.places));
  const int B = int(in.r.size(0)), stride = int(in.r.size(2));
  return {{core::in<double>(in.nodes), in.N},
          places,
          core::in<T>(weights),
          in.bins_u,
          in.bins_v,
          in.taps,
          weights.size(1),
          in.plane,
          {core::in<T>(in.r), core::in<T>(in.rv), core::in<T>(in.lead), core::in<T>(in.leadv),
           core::in<T>(in.potential), B, in.M, stride, int(in.potential.size(2)), in.mode, in.dz},
          {core::in<int64_t>(in.pair_offset), core::in<int64_t>(in.pair), core::in<int64_t>(in.first),
           core::in<int64_t>(in.offset), values, tangents, in.total},
          tangent};
}

#ifdef __CUDACC__

template <class T>
void run_rows(const Input& in, const WaveRow<T>& f) {
  core::for_each_row(in.r, in.rows, WaveRow<T>::scratch(in.M, f.tangent.K), f, 160);
}

template <class T>
void run_nodes(const Input& in, const WaveNode<T>& b) {
  constexpr int threads = 160;
  core::for_each_row(in.r, in.N, WaveNode<T>::scratch(threads), b, threads);
}

#else

// Rows in shares of equal work, so that threads end together; a share's rows do not depend on the number of threads.
template <class T>
void run_rows(const Input& in, const WaveRow<T>& f) {
  constexpr int64_t shares = 256;
  const int64_t* offset = f.rows.pair_offset;
  const auto bound = [&](int64_t share) {
    return std::lower_bound(offset, offset + in.rows, offset[in.rows] * share / shares) - offset;
  };
  torch::stable::parallel_for(0, shares, /*grain_size=*/1, [&](int64_t first, int64_t last) {
    const WaveRow<T> local = f;
    WaveScratch<T> scratch(f.response.stride);
    const int64_t end = last == shares ? in.rows : bound(last);
    for (int64_t row = bound(first); row < end; ++row) wave_row(local, row, scratch);
  });
}

template <class T>
void run_nodes(const Input& in, const WaveNode<T>& b) {
  torch::stable::parallel_for(0, (in.N + batch - 1) / batch, /*grain_size=*/1, [&](int64_t first, int64_t last) {
    const WaveNode<T> local = b;
    ReverseScratch<T> scratch(b.forward.response.stride);
    for (int64_t k = first; k < last; ++k)
      wave_nodes(local, k * batch, int(std::min<int64_t>(batch, in.N - k * batch)), scratch);
  });
}

#endif

#define HEPOPS_WAVEFORMS_ARGUMENTS                                                                                  \
  const Tensor &places, const Tensor &pair_offset, const Tensor &pair, const Tensor &node_row, const Tensor &first, \
      const Tensor &offset, const Tensor &r, const Tensor &rv, const Tensor &lead, const Tensor &leadv,             \
      const Tensor &potential, double pitch, double dt, int64_t bins, int64_t reach, double cut, int64_t M,         \
      int64_t mode, double dz, int64_t bins_u, int64_t bins_v, int64_t taps, int64_t total
#define HEPOPS_WAVEFORMS_SCHEMA                                                                              \
  "Tensor places, Tensor pair_offset, Tensor pair, Tensor node_row, Tensor first, Tensor offset, Tensor r, " \
  "Tensor rv, Tensor lead, Tensor leadv, Tensor potential, float pitch, float tick, int bins, int reach, "   \
  "float cut, int length, int lead_mode, float dz, int bins_u, int bins_v, int taps, int total"
#define HEPOPS_WAVEFORMS_PASS                                                                                        \
  places, pair_offset, pair, node_row, first, offset, r, rv, lead, leadv, potential, pitch, dt, bins, reach, cut, M, \
      mode, dz, bins_u, bins_v, taps, total

Input check(const Tensor& nodes, const Tensor& velocity, HEPOPS_WAVEFORMS_ARGUMENTS) {
  check_nodes(nodes, pitch, dt, bins, reach, cut, M, mode);
  core::check_scalar("waveforms: velocity", velocity, nodes);
  const int64_t N = nodes.size(1), side = 2 * reach + 1, rows = first.numel();
  const auto ints = [&](const char* name, const Tensor& x, int64_t n) {
    core::check_value(x.numel() == n, "waveforms: ", name, " has shape ", core::Shape{x}, ", expected ", n, " numbers");
    return check_kind(name, x, ScalarType::Long, nodes);
  };
  core::check_value(r.dim() == 3 && r.size(0) == r.size(1) && r.size(2) > M && r.size(2) % 32 == 0,
                    "waveforms: r must be (B, B, ticks) with ticks > length and a multiple of 32, got ",
                    core::Shape{r});
  core::check_value(bins_u <= max_bins && bins_v <= max_bins, "waveforms: a node covers ", std::max(bins_u, bins_v),
                    " bins, more than ", max_bins, ": is its diffusion right?");
  core::check_value(taps <= max_taps, "waveforms: a node arrives over ", taps, " ticks, more than ", max_taps,
                    ": is its diffusion right?");
  const auto table_like = [&](const char* name, const Tensor& x) {
    core::check_same_shape(name, x, r);
    return core::contiguous(x);
  };
  core::check_value(potential.dim() == 3 && potential.size(2) >= 2, "waveforms: potential must be (B, B, P >= 2), got ",
                    core::Shape{potential});
  core::check_same_kind("waveforms: potential", potential, r);
  core::check_value(mode != table || (potential.size(0) == r.size(0) && dz > 0),
                    "waveforms: potential must have the bins of r and dz > 0 [cm], got ", core::Shape{potential}, ", ",
                    dz);
  return {core::contiguous(nodes),
          velocity,
          ints("places", places, N * place_size),
          ints("pair_offset", pair_offset, rows + 1),
          check_kind("pair", pair, ScalarType::Long, nodes),
          ints("node_row", node_row, N * side * side),
          check_kind("first", first, ScalarType::Long, nodes),
          ints("offset", offset, rows + 1),
          core::contiguous(r),
          table_like("waveforms: rv", rv),
          table_like("waveforms: lead", lead),
          table_like("waveforms: leadv", leadv),
          core::contiguous(potential),
          {pitch, dt, int(bins), int(reach), cut},
          N,
          rows,
          total,
          bins_u,
          bins_v,
          taps,
          int(M),
          Lead(mode),
          dz};
}

Tensor forward(const Tensor& nodes, const Tensor& velocity, HEPOPS_WAVEFORMS_ARGUMENTS) {
  const Input in = check(nodes, velocity, HEPOPS_WAVEFORMS_PASS);
  Tensor values = torch::stable::new_empty(in.r, {total});
  core::for_floating("waveforms: r", in.r, [&]<class T>() {
    const Tensor weights = weigh_all<T>(in, false);
    run_rows(in, rows_of<T>(in, weights, core::out<T>(values), nullptr, {nullptr, nullptr, 0}));
  });
  return values;
}

std::tuple<Tensor, Tensor> jvp(const Tensor& nodes, const Tensor& velocity, const Tensor& node_tangents,
                               const Tensor& velocity_tangents, HEPOPS_WAVEFORMS_ARGUMENTS) {
  const Input in = check(nodes, velocity, HEPOPS_WAVEFORMS_PASS);
  const int64_t K = node_tangents.size(0);
  core::check_value(K >= 1 && K <= max_tangents, "waveforms_jvp: 1 to ", max_tangents, " tangents, got ", K);
  core::check_value(node_tangents.dim() == 3 && node_tangents.size(1) == 5 && node_tangents.size(2) == in.N,
                    "waveforms_jvp: node_tangents must be (K, 5, N), got ", core::Shape{node_tangents});
  core::check_value(velocity_tangents.numel() == K, "waveforms_jvp: velocity_tangents must be (K), got ",
                    core::Shape{velocity_tangents});
  const Tensor dn = check_kind("node_tangents", node_tangents, ScalarType::Double, nodes);
  const Tensor dv = check_kind("velocity_tangents", velocity_tangents, ScalarType::Double, nodes);
  Tensor values = torch::stable::new_empty(in.r, {total}), tangents = torch::stable::new_empty(in.r, {K, total});
  core::for_floating("waveforms: r", in.r, [&]<class T>() {
    const Tensor weights = weigh_all<T>(in, true);
    run_rows(in, rows_of<T>(in, weights, core::out<T>(values), core::out<T>(tangents),
                            {core::in<double>(dn), core::in<double>(dv), int(K)}));
  });
  return {values, tangents};
}

// -> the gradients of the nodes and, node by node, of the velocity
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& nodes, const Tensor& velocity,
                                    HEPOPS_WAVEFORMS_ARGUMENTS) {
  const Input in = check(nodes, velocity, HEPOPS_WAVEFORMS_PASS);
  core::check_same_kind("waveforms_backward: grad", grad, r);
  core::check_value(grad.numel() == total, "waveforms_backward: grad has shape ", core::Shape{grad}, ", expected (",
                    total, ")");
  const Tensor g = core::contiguous(grad);
  Tensor grad_nodes = core::empty_like(in.nodes), grad_velocity = torch::stable::new_empty(in.nodes, {in.N});
  core::for_floating("waveforms: r", in.r, [&]<class T>() {
    const Tensor weights = weigh_all<T>(in, true);
    run_nodes(in, WaveNode<T>{rows_of<T>(in, weights, nullptr, nullptr, {nullptr, nullptr, 0}), core::in<T>(g),
                              core::in<int64_t>(in.node_row), core::out<double>(grad_nodes),
                              core::out<double>(grad_velocity)});
  });
  return {grad_nodes, grad_velocity};
}

// What one node put into the charge of one hit: its current on the hit's pixel, summed over the hit's integration.
struct Entries {
  const int64_t* pair;        // index into rows.pair; (E)
  const double *begin, *end;  // of the integration, absolute ticks; (E)
  double* charge;             // (E) [e]
};

// Share of tick k within [begin, end).
HEPOPS_HD double overlap(int64_t k, double begin, double end) {
  const double low = double(k) > begin ? double(k) : begin, high = double(k + 1) < end ? double(k + 1) : end;
  return high > low ? high - low : 0.0;
}

template <class T>
struct HitShare {
  WaveRow<T> wave;
  Entries entries;

  // The current of the node alone, as the only one of a row of its own.
  HEPOPS_HD void operator()(int64_t e, const core::Team& team) const {
    const int64_t side = wave.plane.side(), pair = wave.rows.pair[entries.pair[e]];
    const Place& at = wave.places[pair / (side * side)];
    T* current = reinterpret_cast<T*>(team.memory + WaveRow<T>::scratch(wave.response.M, 0));
    const int64_t length = at.last - at.first, zero = 0;
    WaveRow<T> alone = wave;
    alone.rows.values = current;
    alone.rows.offset = &zero;
    alone.rows.first = &at.first;
    team.sync();
    for (int64_t o = team.rank; o < length; o += team.size) current[o] = 0;
    alone.add(0, pair, team);
    team.sync();
    if (team.rank != 0) return;
    double sum = 0;
    for (int64_t o = 0; o < length; ++o)
      sum += double(current[o]) * overlap(at.first + o, entries.begin[e], entries.end[e]);
    entries.charge[e] = sum * wave.plane.dt;
  }
};

#ifndef __CUDACC__
// The same with the tuned form.
template <class T>
void hit_share(const HitShare<T>& f, int64_t e, WaveScratch<T>& scratch, std::vector<T>& current) {
  const int64_t side = f.wave.plane.side(), pair = f.wave.rows.pair[f.entries.pair[e]];
  const Place& at = f.wave.places[pair / (side * side)];
  const int64_t length = at.last - at.first, offset[2] = {0, length}, pair_offset[2] = {0, 1};
  current.resize(length);
  WaveRow<T> alone = f.wave;
  alone.rows.pair = &pair;
  alone.rows.pair_offset = pair_offset;
  alone.rows.offset = offset;
  alone.rows.first = &at.first;
  alone.rows.values = current.data();
  wave_row(alone, 0, scratch);
  double sum = 0;
  for (int64_t o = 0; o < length; ++o)
    sum += double(current[o]) * overlap(at.first + o, f.entries.begin[e], f.entries.end[e]);
  f.entries.charge[e] = sum * f.wave.plane.dt;
}
#endif

Tensor hit_shares(const Tensor& nodes, const Tensor& velocity, const Tensor& entry_pair, const Tensor& begin,
                  const Tensor& end, HEPOPS_WAVEFORMS_ARGUMENTS) {
  const Input in = check(nodes, velocity, HEPOPS_WAVEFORMS_PASS);
  const int64_t E = entry_pair.numel();
  core::check_value(begin.numel() == E && end.numel() == E, "hit_shares: entries must have one length, got ", E, ", ",
                    begin.numel(), " and ", end.numel());
  const Tensor p = check_kind("entry_pair", entry_pair, ScalarType::Long, nodes);
  const Tensor b = check_kind("begin", begin, ScalarType::Double, nodes);
  const Tensor e = check_kind("end", end, ScalarType::Double, nodes);
  Tensor result = torch::stable::new_empty(in.nodes, {E});
  const Entries entries{core::in<int64_t>(p), core::in<double>(b), core::in<double>(e), core::out<double>(result)};
  core::for_floating("waveforms: r", in.r, [&]<class T>() {
    const Tensor weights = weigh_all<T>(in, false);
    const HitShare<T> f{rows_of<T>(in, weights, nullptr, nullptr, {nullptr, nullptr, 0}), entries};
#ifdef __CUDACC__
    const size_t memory = WaveRow<T>::scratch(in.M, 0) + (in.M + 2 + in.taps) * sizeof(T);
    core::for_each_row(in.r, E, memory, f, 160);
#else
    torch::stable::parallel_for(0, E, /*grain_size=*/64, [&](int64_t first_entry, int64_t last_entry) {
      WaveScratch<T> scratch(f.wave.response.stride);
      std::vector<T> current;
      for (int64_t k = first_entry; k < last_entry; ++k) hit_share(f, k, scratch, current);
    });
#endif
  });
  return result;
}

const core::Operators operators{
    core::op<places>("_wave_places(Tensor nodes, Tensor velocity, float pitch, float tick, int bins, int reach, "
                     "float cut, int length, int lead_mode) -> Tensor"),
    core::op<collect>("_wave_collect(Tensor nodes, Tensor places, Tensor pixels, float pitch, int bins, int reach, "
                      "float cut, bool shares) -> (Tensor, Tensor)"),
    core::op<hit_shares>("_hit_shares(Tensor nodes, Tensor velocity, Tensor entry_pair, Tensor "
                         "begin, Tensor end, " HEPOPS_WAVEFORMS_SCHEMA ") -> Tensor"),
    core::op<forward>("waveforms(Tensor nodes, Tensor velocity, " HEPOPS_WAVEFORMS_SCHEMA ") -> Tensor"),
    core::op<jvp>("waveforms_jvp(Tensor nodes, Tensor velocity, Tensor node_tangents, Tensor "
                  "velocity_tangents, " HEPOPS_WAVEFORMS_SCHEMA ") -> (Tensor, Tensor)"),
    core::op<backward>("waveforms_backward(Tensor grad, Tensor nodes, Tensor velocity, " HEPOPS_WAVEFORMS_SCHEMA
                       ") -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc
