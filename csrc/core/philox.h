#pragma once
// Random bits from a counter: block = Philox4x32-10(counter, key), a bijection of the 128-bit counter for every key.
//
//   (L, R) -> (mulhi(R, M) ^ k ^ L', mullo(R, M)) on two pairs, ten times; k grows by Weyl's constants
//
// J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC'11 (2011) 16,
// doi:10.1145/2063384.2063405. It passes TestU01's BigCrush (ibid., section 5).
//
// There is no state: a number is named by (seed, index, step, purpose), and is the same on every device, thread, rank
// and in every order of work. Names differ in one part at least: what an index, a step and a purpose mean is the
// operator's to say.
#include "core/distributions.h"

namespace hepops::core {

struct Philox {
  uint64_t seed;   // the key
  uint64_t index;  // the lower half of the counter: event, pixel, site, sample ...

  HEPOPS_HD Philox(uint64_t seed, uint64_t index) : seed(seed), index(index) {}

  // Four words. The upper half of the counter: a step in time, and what the numbers are for.
  HEPOPS_HD Vec<uint32_t, 4> block(uint32_t step, uint32_t purpose) const {
    constexpr uint64_t M0 = 0xD2511F53, M1 = 0xCD9E8D57;  // multipliers, Salmon et al., section 4.3
    constexpr uint32_t W0 = 0x9E3779B9, W1 = 0xBB67AE85;  // golden ratio - 1, sqrt 3 - 1, ibid.
    Vec<uint32_t, 4> c{uint32_t(index), uint32_t(index >> 32), step, purpose};
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = M0 * c[0], p1 = M1 * c[2];
      c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
      k0 += W0;
      k1 += W1;
    }
    return c;
  }
};

}  // namespace hepops::core
