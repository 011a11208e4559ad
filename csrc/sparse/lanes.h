#pragma once
// The members of a team over (rows, channels): neighbouring channels on neighbouring members, so that a GPU reads whole
// lines. A team of one, on the CPU, has one lane and one group, and its loops over channels become SIMD.
#include "core/team.h"

namespace hepops::sparse {

struct Lanes {
  int lane, lanes;    // channels lane, lane + lanes, ...
  int group, groups;  // rows group, group + groups, ...

  HEPOPS_HD explicit Lanes(const core::Team& team) {
    lanes = team.size < 32 ? team.size : 32;
    groups = team.size / lanes;
    lane = team.rank % lanes;
    group = team.rank / lanes;
  }
};

}  // namespace hepops::sparse
