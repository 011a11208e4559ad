// Segments to hits: the chain of hepops.lartpc.Simulator, some whole events at a time.
#include <algorithm>

#include "core/double_double.h"
#include "lartpc/frontend_sampled.h"
#include "lartpc/waveforms_cpu.h"
#include "sdk/functions.h"
#include "sdk/hits.h"
#include "sdk/scene.h"

namespace hepops::sdk {
namespace {

namespace larpix = lartpc::larpix;

// The currents of a scene's rows.
template <class T>
class Currents {
 public:
  explicit Currents(Resource& memory) : values(memory), weights_(memory) {}

  void make(const hepops_simulator& s, const Scene& scene, const Parallel& parallel) {
    const int64_t per_node = scene.bins_u + scene.bins_v + scene.taps;
    weights_.resize(scene.N * per_node);
    values.resize(scene.total);
    parallel(scene.N, 64, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        T* w = weights_.data() + i * per_node;
        lartpc::weigh(lartpc::Weights<T>{w, w + scene.bins_u, w + scene.bins_u + scene.bins_v, per_node}, false,
                      scene.nodes, i, scene.places[i], scene.plane);
      }
    });
    const lartpc::WaveRow<T> f{scene.nodes,
                               scene.places.data(),
                               weights_.data(),
                               scene.bins_u,
                               scene.bins_v,
                               scene.taps,
                               per_node,
                               scene.plane,
                               s.tables<T>().view(),
                               {scene.pair_offset.data(), scene.pair.data(), scene.first_tick.data(),
                                scene.offset.data(), values.data(), nullptr, scene.total},
                               {nullptr, nullptr, 0}};
    run(f, scene.rows, parallel);
  }

  Array<T> values;

 private:
  // Rows in shares of equal work, so that threads end together; a row is the same in any share.
  static void run(const lartpc::WaveRow<T>& f, int64_t rows, const Parallel& parallel) {
    constexpr int64_t shares = 256;
    const int64_t* offset = f.rows.pair_offset;
    const auto bound = [&](int64_t share) {
      return std::lower_bound(offset, offset + rows, offset[rows] * share / shares) - offset;
    };
    parallel(shares, 1, [&](int64_t first, int64_t last) {
      const lartpc::WaveRow<T> local = f;
      lartpc::WaveScratch<T> scratch(f.response.stride);
      const int64_t end = last == shares ? rows : bound(last);
      for (int64_t row = bound(first); row < end; ++row) lartpc::wave_row(local, row, scratch);
    });
  }

  Array<T> weights_;
};

// What the chip of a row finds: f(time from the row's start [ticks], charge [e], rank) for each trigger.
template <class T>
struct Chips {
  const hepops_simulator& s;
  const Scene& scene;
  const T* values;
  int64_t seed;

  larpix::Row<T> current(int64_t row) const {
    return {values + scene.offset[row], scene.offset[row + 1] - scene.offset[row]};
  }

  double threshold(int64_t row) const {
    if (s.thresholds.empty()) return double(T(s.config.frontend.threshold));
    const int64_t tpc = scene.windows[scene.row_window[row]].tpc;
    const int64_t pixel = scene.row_v[row] * s.tpcs[size_t(tpc)].nx + scene.row_u[row];
    return double(T(s.thresholds[size_t(s.first_pixel[size_t(tpc)] + pixel)]));
  }

  template <class F>
  int64_t operator()(int64_t row, const F& f) const {
    const larpix::Row<T> now = current(row);
    const larpix::Charges sum = larpix::charges(now, 0, 1);
    check(sum.finite(), "simulate: a current is not finite");
    const double bar = threshold(row), tick = s.config.tick;
    if (seed < 0) {
      if (sum.silent(bar / tick)) return 0;
      larpix::Continuous<T> face{s.chip, now, bar / tick};
      return larpix::integrate_and_read(
          face, [&](double time, double charge, int64_t rank) { f(time, double(T(tick * charge)), rank); });
    }
    const auto& chip = s.config.frontend;
    const larpix::Noise noise{float(chip.reset_noise), float(chip.uncorrelated_noise), float(chip.discriminator_noise)};
    const auto follow = [&](auto&& face) {
      return larpix::integrate_and_read(
          face, [&](int64_t moment, double charge, int64_t rank) { f(double(moment), double(T(charge)), rank); });
    };
    if (noise.none()) {
      if (sum.silent(bar / tick)) return 0;
      return follow(larpix::Sampled<T, larpix::Quiet>{s.chip, now, bar, tick, scene.first_tick[row], 0, now.ticks, {}});
    }
    const Window& window = scene.windows[scene.row_window[row]];
    return follow(larpix::Sampled<T, larpix::PixelNoise>{
        s.chip, now, bar, tick, scene.first_tick[row], 0, now.ticks,
        larpix::PixelNoise(uint64_t(seed), window.event, window.tpc, scene.row_u[row], scene.row_v[row], noise)});
  }
};

// Hits of all scenes, one after the other.
class Collector {
 public:
  explicit Collector(Resource& memory) : hits(memory), first_(memory), triggers_(memory) {}

  template <class T>
  void add(const hepops_simulator& s, const Scene& scene, const T* values, int64_t seed, const Parallel& parallel) {
    const Chips<T> chips{s, scene, values, seed};
    first_.resize(scene.rows + 1);
    triggers_.resize(scene.rows);
    first_[0] = count;
    parallel(scene.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t accepted = 0;
        triggers_[row] = chips(row, [&](double, double, int64_t rank) { accepted += rank >= 0; });
        first_[row + 1] = accepted;
      }
    });
    for (int64_t row = 0; row < scene.rows; ++row) {
      rejected += triggers_[row] - first_[row + 1];
      first_[row + 1] += first_[row];
    }
    hits.grow(first_[scene.rows], count);
    parallel(scene.rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (first_[row] == first_[row + 1]) continue;
        Hit* to = hits.data() + first_[row];
        chips(row, [&](double time, double charge, int64_t rank) {
          if (rank >= 0) *to++ = hit(s, scene, row, time, charge, rank, seed >= 0);
        });
      }
    });
    count = first_[scene.rows];
    rows += scene.rows;
  }

  // Where a pixel may have rows in several windows: by pixel and time, counted anew.
  void rank() {
    const auto pixel = [](const Hit& h) { return std::tuple(h.event, h.tpc, h.iy, h.ix); };
    std::stable_sort(hits.data(), hits.data() + count, [&](const Hit& a, const Hit& b) {
      return pixel(a) != pixel(b) ? pixel(a) < pixel(b) : a.time < b.time;
    });
    for (int64_t i = 0; i < count; ++i)
      hits[i].rank = i > 0 && pixel(hits[i]) == pixel(hits[i - 1]) ? hits[i - 1].rank + 1 : 0;
  }

  Array<Hit> hits;
  int64_t count = 0, rows = 0, rejected = 0;

 private:
  Hit hit(const hepops_simulator& s, const Scene& scene, int64_t row, double crossed, double charge, int64_t rank,
          bool rounded) const {
    const Window& window = scene.windows[scene.row_window[row]];
    const int64_t ix = scene.row_u[row], iy = scene.row_v[row];
    const HitPlace at = place_of_pixel(s, window.tpc, ix, iy);
    const double time = (double(scene.first_tick[row]) + crossed) * s.config.tick;
    return {window.event,
            window.tpc,
            ix,
            iy,
            rows + row,
            rank,
            drift_position(at, s.velocity, time, window.t0),
            at.y,
            at.z,
            time,
            charge,
            adc(s.config.frontend, charge, s.config.precision == 32, rounded)};
  }

  Array<int64_t> first_, triggers_;
};

// Whole events, in order, of about `chunk` nodes together: f(first piece, last piece).
template <class F>
void for_chunks(const hepops_simulator& s, const Array<Piece>& pieces, const F& f) {
  int64_t begin = 0, filled = 0;
  for (int64_t k = 0, end; k < pieces.size(); k = end) {
    int64_t nodes = 0;
    for (end = k; end < pieces.size() && pieces[end].event == pieces[k].event; ++end)
      nodes += count_nodes(pieces[end], s.config.step);
    if (filled && filled + nodes > s.config.chunk) {
      f(begin, k);
      begin = k;
      filled = 0;
    }
    filled += nodes;
  }
  if (begin < pieces.size()) f(begin, pieces.size());
}

template <class T>
void simulate(hepops_context& context, const hepops_simulator& s, const hepops_segments& segments, int64_t seed,
              hepops_hits& result) {
  const Parallel parallel = context.parallel();
  Array<Piece> pieces(context.resource);
  const Outside outside = cut(s, segments, context.resource, pieces);
  Scene scene(context.resource);
  Currents<T> currents(context.resource);
  Collector collector(context.resource);
  core::DoubleDouble arriving, lost;  // the sums over the events do not depend on how these were divided
  bool several = false;
  for_chunks(s, pieces, [&](int64_t begin, int64_t end) {
    scene.set(s, pieces.data() + begin, end - begin, parallel);
    currents.make(s, scene, parallel);
    collector.add(s, scene, currents.values.data(), seed, parallel);
    several |= scene.several;
    for (int64_t k = begin, next; k < end; k = next) {
      for (next = k; next < end && pieces[next].event == pieces[k].event;) ++next;
      const Collected c =
          collect(s, scene, pieces.data() + begin, scene.first_node[k - begin], scene.first_node[next - begin]);
      arriving = arriving + c.arriving;
      lost = lost + c.lost;
    }
  });
  if (several) collector.rank();
  result.take(collector.hits, collector.count);
  auto& view = result.view;
  view.segments_outside = outside.segments;
  view.energy_outside = outside.energy;
  view.electrons_arriving = double(arriving);
  view.electrons_lost = double(lost);
  view.rejected = collector.rejected;
  view.pixels = collector.rows;
}

hepops_status simulator_create(hepops_context* context, const hepops_simulator_config* config,
                               hepops_simulator** simulator) {
  return guarded(context, [&] {
    check(config && simulator, "simulator_create: config or simulator is NULL");
    *simulator = nullptr;
    *simulator = make<hepops_simulator>(context->resource.execution(), *config, context->parallel());
  });
}

hepops_status simulate(hepops_context* context, const hepops_simulator* simulator, const hepops_segments* segments,
                       const hepops_simulate_options* options, hepops_hits** hits) {
  return guarded(context, [&] {
    check(simulator && segments && hits, "simulate: simulator, segments or hits is NULL");
    *hits = nullptr;
    const int64_t seed = options ? options->seed : -1;
    check(seed >= -1, "simulate: seed must be -1 (none) or more, got ", seed);
    check_segments(*segments);
    hepops_hits* made = make<hepops_hits>(context->resource.execution());
    try {
      if (simulator->config.precision == 32)
        simulate<float>(*context, *simulator, *segments, seed, *made);
      else
        simulate<double>(*context, *simulator, *segments, seed, *made);
    } catch (...) {
      destroy(made);
      throw;
    }
    *hits = made;
  });
}

}  // namespace

void fill_simulate(Functions& f) {
  f.simulator_create = simulator_create;
  f.simulator_destroy = destroy<hepops_simulator>;
  f.simulate = simulate;
  f.hits_destroy = destroy<hepops_hits>;
}

}  // namespace hepops::sdk
