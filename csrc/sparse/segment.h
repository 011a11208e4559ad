#pragma once
// Rows in segments: order[starts[s]] ... order[starts[s + 1] - 1] are the rows of segment s.
//
//   reduce      out[s] = sum, mean or max of x[order[j]] over j in s; 0 where s is empty
//   broadcast   out[order[j]] = v[s], or v[s] / n_s, for j in s
//
// A segment is cut into blocks of 256 rows; a block is summed in double, then the blocks of a segment one after the
// other: one order, whatever the number of threads.
#include <cstdint>

#include "core/scatter_add.h"

namespace hepops::sparse {

enum class Reduce : int64_t { sum, mean, max };

constexpr int64_t segment_block = 256;

HEPOPS_HD int64_t blocks_of(int64_t rows) { return (rows + segment_block - 1) / segment_block; }

template <class I>
struct Segments {
  const I* order;          // (num_rows)
  const int64_t* starts;   // (num_segments + 1)
  const int64_t* offsets;  // (num_segments + 1), the first block of each
  int64_t num_rows, num_segments;

  HEPOPS_HD int64_t num_blocks() const { return offsets[num_segments]; }
  HEPOPS_HD int64_t size(int64_t segment) const { return starts[segment + 1] - starts[segment]; }
};

// The rows order[first] ... order[last - 1], of one segment.
struct SegmentBlock {
  int64_t segment, first, last;

  template <class I>
  HEPOPS_HD SegmentBlock(const Segments<I>& in, int64_t block) {
    // the last segment that begins at this block or before: of those that begin here, all but the last are empty
    segment = core::lower_bound(in.offsets, in.num_segments + 1, block + 1) - 1;
    first = in.starts[segment] + (block - in.offsets[segment]) * segment_block;
    last = first + segment_block < in.starts[segment + 1] ? first + segment_block : in.starts[segment + 1];
  }
};

}  // namespace hepops::sparse
