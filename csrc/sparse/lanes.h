#pragma once
// The members of a team over (rows, channels): neighbouring channels on neighbouring members, so that a GPU reads whole
// lines. A team of one, on the CPU, has one lane and one group, and its loops over channels become SIMD.
#include "core/team.h"

namespace hepops::sparse {

struct Lanes {
  int lane, lanes;    // channels lane, lane + lanes, ...
  int group, groups;  // rows group, group + groups, ...

  // 32 lanes, or where there are fewer channels the next power of two
  HEPOPS_HD explicit Lanes(const core::Team& team, int64_t channels = 32) {
    lanes = 1;
    while (lanes < team.size && lanes < 32 && lanes < channels) lanes *= 2;
    groups = team.size / lanes;
    lane = team.rank % lanes;
    group = team.rank / lanes;
  }
};

}  // namespace hepops::sparse
