#include "lartpc/frontend_sampled.h"

#include <type_traits>

#include "core/op.h"
#include "lartpc/frontend_rows.h"

namespace hepops::lartpc::larpix {
namespace {

template <class T, class Random>
struct MakeSampled {
  using Time = int64_t;
  using Value = T;
  Rows<T> rows;
  const int64_t* first_tick;
  const int64_t* pixel;  // (rows, 4): event, tpc, ix, iy
  double tick;
  Chip chip;
  uint64_t seed;
  Noise noise;
  bool within;  // it looks in [from, to), else in the row's window
  int64_t from, to;

  HEPOPS_HD Sampled<T, Random> operator()(int64_t row) const {
    const Row<T> current = rows[row];
    const int64_t offset = first_tick[row];
    return {chip,
            current,
            rows.threshold(row),
            tick,
            offset,
            within ? from - offset : 0,
            within ? to - offset : current.ticks,
            random(row)};
  }

  HEPOPS_HD Random random(int64_t row) const {
    if constexpr (std::is_same_v<Random, PixelNoise>) {
      const int64_t* p = pixel + 4 * row;
      return PixelNoise(seed, p[0], p[1], p[2], p[3], noise);
    } else {
      return {};
    }
  }

  // The tick at whose end it crossed.
  HEPOPS_HD int64_t time(int64_t moment, int64_t row) const { return first_tick[row] + moment - 1; }
  HEPOPS_HD double charge(double read) const { return read; }
};

template <class T, class Random>
struct CountSampled {
  MakeSampled<T, Random> make;
  int64_t* counts;

  HEPOPS_HD void operator()(int64_t row) const {
    if (!make.rows.inside(row)) {
      counts[row + 1] = refused;
      return;
    }
    auto face = make(row);
    const Charges sum = charges(face.row, 0, 1);
    if (!good(sum, face.threshold)) {
      counts[row + 1] = refused;
    } else if (std::is_same_v<Random, Quiet> && sum.silent(face.threshold / make.tick)) {
      counts[row + 1] = 0;
    } else {
      counts[row + 1] = integrate_and_read(face, [](int64_t, double, int64_t) {});
    }
  }
};

// rise_time 0: no filter. interval: none, or the first tick and the one after the last.
Result sampled(const Tensor& values, const Tensor& offsets, const Tensor& first_tick, const Tensor& pixel,
               const Tensor& threshold, int64_t seed, double tick, int64_t hold, int64_t reset, int64_t busy,
               double rise_time, double reset_noise, double uncorrelated_noise, double discriminator_noise,
               std::optional<int64_t> from, std::optional<int64_t> to) {
  const Chip chip = chip_of(tick, hold, reset, busy, rise_time);
  core::check_value(from.has_value() == to.has_value() && (!from || *from <= *to),
                    "frontend: an interval needs a first tick and a last one that is not before it");
  const Noise noise{float(reset_noise), float(uncorrelated_noise), float(discriminator_noise)};
  for (const double sigma : {reset_noise, uncorrelated_noise, discriminator_noise})
    core::check_value(sigma >= 0 && sigma - sigma == 0, "frontend: noise must not be negative [e], got ", sigma);

  std::optional<Result> result;
  core::for_floating("frontend: currents", values, [&]<class T>() {
    const Input input(values, offsets, threshold);
    const Tensor start = core::contiguous(first_tick), name = core::contiguous(pixel);
    input.check_int64("first_tick", start);
    input.check_int64("pixel", name);
    core::check_value(start.numel() == input.rows, "frontend: first_tick must be (", input.rows, ",), got ",
                      core::Shape{start});
    core::check_value(name.dim() == 2 && name.size(0) == input.rows && name.size(1) == 4, "frontend: pixel must be (",
                      input.rows, ", 4), got ", core::Shape{name});
    const auto run = [&]<class Random>() {
      const MakeSampled<T, Random> make{
          input.as<T>(), core::in<int64_t>(start), core::in<int64_t>(name), tick,          chip, uint64_t(seed),
          noise,         from.has_value(),         from.value_or(0),        to.value_or(0)};
      Tensor counts = torch::stable::new_zeros(input.values, {input.rows + 1}, ScalarType::Long);
      for_each_by_thread(input.values, input.rows, CountSampled<T, Random>{make, core::out<int64_t>(counts)});
      result = write(input, make, scan<T>(input, counts), ScalarType::Long);
    };
    if (noise.none()) {
      run.template operator()<Quiet>();
    } else {
      run.template operator()<PixelNoise>();
    }
  });
  return *result;
}

const core::Operators operators{
    core::op<sampled>(
        "_frontend_sampled(Tensor values, Tensor offsets, Tensor first_tick, Tensor pixel, "
        "Tensor threshold, int seed, float tick, int hold, int reset, int busy, float rise_time, float reset_noise, "
        "float uncorrelated_noise, float discriminator_noise, int? start, int? stop) "
        "-> (Tensor tick, Tensor charge, Tensor row, Tensor rank, Tensor first)"),
};

}  // namespace
}  // namespace hepops::lartpc::larpix
