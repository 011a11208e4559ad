#pragma once
// The sampled face of the front end (frontend.h), and its noise.
//
//   look at the end of tick k   Q + n >= threshold + d      n ~ N(0, uncorrelated), d ~ N(0, discriminator), fresh
//   reading                     q = Q + n, a hit where q >= threshold + d, both fresh
//   restart                     Q ~ N(0, reset)
#include "core/philox.h"
#include "lartpc/frontend.h"

namespace hepops::lartpc::larpix {

struct Noise {
  float reset, uncorrelated, discriminator;  // standard deviations [e]
  HEPOPS_HD bool none() const { return reset == 0 && uncorrelated == 0 && discriminator == 0; }
};

// The random numbers of one pixel, named by the seed, (event, tpc, ix, iy), the absolute tick and their purpose: the
// same whatever else is simulated with it, in whatever window and order.
class PixelNoise {
 public:
  HEPOPS_HD PixelNoise(uint64_t seed, int64_t event, int64_t tpc, int64_t ix, int64_t iy, const Noise& sigma)
      : philox_(seed, name(seed, event, tpc, ix, iy)),
        sigma_(sigma),
        look_variance_(double(sigma.uncorrelated) * sigma.uncorrelated +
                       double(sigma.discriminator) * sigma.discriminator) {}

  // Charge of the reset that ends as tick k begins.
  HEPOPS_HD float reset(int64_t k) const {
    const auto words = block(k, Purpose::reset);
    return sigma_.reset * core::normal2<float>(words[0], words[1])[0];
  }

  // Uncorrelated minus discriminator noise: of the look at the end of tick k, and of the reading.
  HEPOPS_HD float look(int64_t k) {
    const Words words = look_words(k);
    const auto normal = core::normal2<float>(words.radius, words.angle);
    return std::fma(sigma_.uncorrelated, normal[0], -(sigma_.discriminator * normal[1]));
  }

  // Whether noise could lift the look at tick k by `gap`. Box-Muller's radius is at most sqrt(2 ln 2 (z + 1)) where z
  // zeros lead the first word, so that one comparison spares the logarithm nearly always, and never errs.
  HEPOPS_HD bool may_lift(int64_t k, double gap) {
    constexpr double two_ln2 = 1.3862944 * 1.0001;  // the margin is far above the rounding of normal2
    if (!(gap > 0)) return true;
    return gap * gap <= look_variance_ * two_ln2 * (leading_zeros(look_words(k).radius) + 1);
  }

  // Uncorrelated and discriminator noise of the reading after tick k.
  HEPOPS_HD core::Vec<float, 2> reading(int64_t k) const {
    const auto words = block(k, Purpose::reading);
    const auto normal = core::normal2<float>(words[0], words[1]);
    return {sigma_.uncorrelated * normal[0], sigma_.discriminator * normal[1]};
  }

 private:
  enum class Purpose : uint32_t { name, reset, look, reading };

  HEPOPS_HD static uint64_t name(uint64_t seed, int64_t event, int64_t tpc, int64_t ix, int64_t iy) {
    const auto join = [](const core::Vec<uint32_t, 4>& words) { return uint64_t(words[0]) << 32 | words[1]; };
    const core::Philox of_event(seed, uint64_t(event));
    const core::Philox of_plane(seed, join(of_event.block(uint32_t(tpc), uint32_t(Purpose::name))));
    return join(of_plane.block(uint32_t(ix), uint32_t(iy)));
  }

  // The tick's upper bits stand above the purpose: absolute ticks may exceed 2^32.
  HEPOPS_HD core::Vec<uint32_t, 4> block(int64_t k, Purpose purpose) const {
    return philox_.block(uint32_t(k), uint32_t(purpose) | uint32_t(uint64_t(k) >> 32) << 2);
  }

  HEPOPS_HD static int leading_zeros(uint32_t word) {
#ifdef __CUDA_ARCH__
    return __clz(int(word));
#else
    return word == 0 ? 32 : __builtin_clz(word);
#endif
  }

  struct Words {
    uint32_t radius, angle;
  };

  // One block holds two words for each of two ticks; on a CPU a stretch of ticks is made at once, with SIMD.
  HEPOPS_HD Words look_words(int64_t k) {
    const int64_t start = k & ~int64_t(stretch - 1);
    if (start != made_) {
      made_ = start;
      for (int b = 0; b < stretch / 2; ++b) {
        const auto words = block((start >> 1) + b, Purpose::look);
        for (int i = 0; i < 4; ++i) words_[4 * b + i] = words[i];
      }
    }
#ifdef __CUDA_ARCH__
    return k & 1 ? Words{words_[2], words_[3]} : Words{words_[0], words_[1]};  // in registers, which have no index
#else
    return {words_[2 * (k - start)], words_[2 * (k - start) + 1]};
#endif
  }

#ifdef __CUDACC__
  static constexpr int stretch = 2;
#else
  static constexpr int stretch = 32;
#endif

  core::Philox philox_;
  Noise sigma_;
  double look_variance_;
  int64_t made_ = -1;  // never a multiple of stretch
  uint32_t words_[2 * stretch];
};

// No noise at all: what a face without a seed draws.
struct Quiet {
  HEPOPS_HD float reset(int64_t) const { return 0; }
  HEPOPS_HD float look(int64_t) const { return 0; }
  HEPOPS_HD bool may_lift(int64_t, double gap) const { return !(gap > 0); }
  HEPOPS_HD core::Vec<float, 2> reading(int64_t) const { return {0, 0}; }
};

template <class T, class Random>
struct Sampled {
  using Moment = int64_t;  // the end of tick k is moment k + 1
  Chip chip;
  Row<T> row;
  double threshold;     // [e]
  double tick;          // [us]
  int64_t offset;       // absolute tick of the row's first
  int64_t first, last;  // ticks of the row between which it looks; a hit's busy time may reach beyond
  Random random;

  double charge = 0, inflow = 0;  // since the restart; f_k [e]
  double bar = 0;                 // what the present reading must reach [e]

  HEPOPS_HD int64_t begin() const { return first; }

  HEPOPS_HD bool next(int64_t restart, int64_t ready, int64_t& trigger) {
    charge = random.reset(offset + restart);
    inflow = 0;
    for (int64_t k = restart; k < last || k < ready; ++k) {
      add(k);
      if (k + 1 < ready || !random.may_lift(offset + k, threshold - charge)) continue;
      if (charge + random.look(offset + k) >= threshold) {
        trigger = k + 1;
        return true;
      }
    }
    return false;
  }

  HEPOPS_HD double read(int64_t trigger) {
    for (int64_t k = trigger; k < trigger + chip.hold; ++k) add(k);
    const auto noise = random.reading(offset + trigger + chip.hold - 1);
    bar = threshold + noise[1];
    return charge + noise[0];
  }

  HEPOPS_HD bool accepts(double reading) const { return reading >= bar; }

  HEPOPS_HD void add(int64_t k) {
    inflow = std::fma(chip.keep, inflow, (1 - chip.keep) * (tick * row[k]));
    charge += inflow;
  }
};

}  // namespace hepops::lartpc::larpix
