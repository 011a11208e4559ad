// The pads' response: of a square pad in a grounded plane, or a table brought to the present velocity so that every bin
// keeps its charge. What hepops.lartpc.response does; compiled without contraction, as that is.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "sdk/simulator.h"

namespace hepops::sdk {
namespace {

// phi (B, B, length + 1), the potential of each bin at depths of 0 ... length ticks of drift -> r and lead, backward in
// time
template <class T>
void lay(const double* phi, Tables<T>& t) {
  const int64_t M = t.length;
  t.stride = int((M + 1 + 31) / 32 * 32);
  const int64_t bins = int64_t(t.B) * t.B;
  t.r.assign(size_t(bins * t.stride), T(0));
  t.lead.assign(size_t(bins * t.stride), T(0));
  for (int64_t b = 0; b < bins; ++b)
    for (int64_t p = 0; p <= M; ++p) {
      const double lead = phi[b * (M + 1) + M - p], before = p > 0 ? phi[b * (M + 1) + M - p + 1] : 0.0;
      t.lead[size_t(b * t.stride + p)] = T(lead);
      t.r[size_t(b * t.stride + p)] = T(p > 0 ? lead - before : t.mode == lartpc::drop ? 0.0 : lead);
    }
}

template <class T>
void builtin(const hepops_simulator& s, Tables<T>& t, const Parallel& parallel) {
  const double pitch = s.config.pixel_pitch, per_tick = s.velocity * s.config.tick;
  const int64_t points = t.length + 1;
  t.bins = 10;
  t.B = int(t.bins * (s.config.reach + 1));
  t.mode = s.config.lead ? lartpc::point : lartpc::drop;
  t.potential.assign(size_t(2 * t.B) * t.B, T(0));
  Vector<double> phi(size_t(t.B) * t.B * points, t.r.get_allocator().resource());
  parallel(int64_t(t.B) * t.B, 64, [&](int64_t first, int64_t last) {
    for (int64_t bin = first; bin < last; ++bin)
      for (int64_t m = 0; m < points; ++m) {
        const double x = (double(bin / t.B) + 0.5) * pitch / t.bins, y = (double(bin % t.B) + 0.5) * pitch / t.bins;
        phi[size_t(bin * points + m)] = lartpc::weighting_potential(x, y, per_tick * double(m), 0.5 * pitch);
      }
  });
  lay(phi.data(), t);
}

double charge_of(const hepops_response_table& table, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t k = 0; k < table.ticks; ++k) sum += table.current[(i * table.bins_y + j) * table.ticks + k];
  return sum * table.tick;
}

double arrival_of(const hepops_response_table& table) {
  const double ticks = double(table.ticks);
  return table.drift_length > 0 ? std::min(ticks, table.drift_length / (table.velocity * table.tick)) : ticks;
}

constexpr int64_t most_bins = 1 << 15, most_ticks = 1 << 24;  // so that their products stay below 2^63 bytes

void check_table(const hepops_response_table& t) {
  check(t.current && t.bins_x > 0 && t.bins_y > 0 && t.ticks > 0, "table: must be (bins_x, bins_y, ticks), got ",
        t.bins_x, ", ", t.bins_y, ", ", t.ticks);
  for (const auto& [name, n, most] :
       {std::tuple("bins_x", t.bins_x, most_bins), std::tuple("bins_y", t.bins_y, most_bins),
        std::tuple("ticks", t.ticks, most_ticks)})
    check(n <= most, "table: ", name, " must be 1 to ", most, ", got ", n);
  check(t.tick > 0 && std::isfinite(t.tick), "table: tick must be positive [us], got ", t.tick);
  check(t.velocity > 0 && std::isfinite(t.velocity), "table: velocity must be positive [cm/us], got ", t.velocity);
  check(t.bins >= 2 && t.bins % 2 == 0, "table: bins per pixel must be even and positive, got ", t.bins);
  check(std::min(t.bins_x, t.bins_y) >= t.bins / 2, "table: less than the ", t.bins / 2, " bins of half a pad");
  check(t.drift_length >= 0 && std::isfinite(t.drift_length), "table: drift_length must not be negative [cm], got ",
        t.drift_length);
  for (int64_t i = 0; i < t.bins_x; ++i)
    for (int64_t j = 0; j < t.bins_y; ++j) {
      const double expected = i < t.bins / 2 && j < t.bins / 2 ? 1.0 : 0.0, charge = charge_of(t, i, j);
      check(std::abs(charge - expected) < 0.05, "table: the charge of bin (", i, ", ", j, "), sum(i dt), is ", charge,
            ", expected ", expected);
    }
  check(arrival_of(t) >= 1, "table: the drift is over within one tick");
}

// The potential of one bin at depths j dz, from the charge that its current still brings: (int(arrival) + 1).
void potential_of_bin(const hepops_response_table& t, int64_t i, int64_t j, double own, Vector<double>& until,
                      double* phi, int64_t points) {
  const double arrival = arrival_of(t);
  const bool there = i < t.bins_x && j < t.bins_y;
  until[0] = 0;
  for (int64_t k = 0; k < t.ticks; ++k)
    until[size_t(k + 1)] = until[size_t(k)] + (there ? t.current[(i * t.bins_y + j) * t.ticks + k] * t.tick : 0.0);
  phi[0] = own;
  for (int64_t n = 1; n < points; ++n) {
    const double at = arrival - double(n);
    const int64_t k = std::min<int64_t>(int64_t(at), t.ticks - 1);
    const double seen = until[size_t(k)] + (until[size_t(k + 1)] - until[size_t(k)]) * (at - double(k));
    phi[n] = own - (until[size_t(t.ticks)] - seen);
  }
}

template <class T>
void from_table(const hepops_simulator& s, const hepops_response_table& table, Tables<T>& t) {
  check_table(table);
  auto* memory = t.r.get_allocator().resource();
  const int64_t points = int64_t(arrival_of(table)) + 1, last = points - 1;
  t.bins = int(table.bins);
  t.B = int(std::max(table.bins_x, table.bins_y));
  t.points = int(points);
  t.dz = table.velocity * table.tick;
  t.mode = s.config.lead ? lartpc::table : lartpc::drop;
  Vector<double> until(size_t(table.ticks + 1), memory), of_depth(size_t(points), memory);
  Vector<double> phi(size_t(t.B) * t.B * (t.length + 1), memory);
  t.potential.assign(size_t(t.B) * t.B * points, T(0));
  for (int64_t bin = 0; bin < int64_t(t.B) * t.B; ++bin) {
    const int64_t i = bin / t.B, j = bin % t.B;
    potential_of_bin(table, i, j, i < t.bins / 2 && j < t.bins / 2 ? 1.0 : 0.0, until, of_depth.data(), points);
    for (int64_t n = 0; n < points; ++n) t.potential[size_t(bin * points + n)] = T(of_depth[size_t(n)]);
    for (int64_t m = 0; m <= t.length; ++m) {
      const double depth = s.velocity * s.config.tick * double(m) / t.dz;
      const int64_t k = std::min<int64_t>(int64_t(depth), last - 1);
      const double rise = of_depth[size_t(k + 1)] - of_depth[size_t(k)];
      phi[size_t(bin * (t.length + 1) + m)] =
          depth < double(last) ? of_depth[size_t(k)] + rise * (depth - double(k)) : of_depth[size_t(last)];
    }
  }
  lay(phi.data(), t);
}

}  // namespace

template <class T>
void make_tables(const hepops_simulator& s, Tables<T>& t, const Parallel& parallel) {
  t.length = int(s.config.length);
  if (s.config.table)
    from_table(s, *s.config.table, t);
  else
    builtin(s, t, parallel);
}

template void make_tables(const hepops_simulator&, Tables<float>&, const Parallel&);
template void make_tables(const hepops_simulator&, Tables<double>&, const Parallel&);

}  // namespace hepops::sdk
