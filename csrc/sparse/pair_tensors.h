#pragma once
// The tensors of a PairList, as operators receive them: pairs (P, 2), entries (E + 1, 2), tiles (T + 1), schedule (n),
// all int32 or all int64.
#include "core/check.h"
#include "core/tensor.h"
#include "sparse/pairs.h"

namespace hepops::sparse {

using core::Tensor;

inline int64_t tile_rows(const Tensor& on) { return on.is_cpu() ? tile_on_cpu : tile_on_gpu; }

struct PairTensors {
  Tensor pairs, entries, tiles, schedule;

  template <class I>
  PairList<I> list() const {
    return {reinterpret_cast<const Pair<I>*>(core::in<I>(pairs)),
            reinterpret_cast<const Entry<I>*>(core::in<I>(entries)),
            core::in<I>(tiles),
            core::in<I>(schedule),
            pairs.size(0),
            entries.size(0) - 1,
            tiles.size(0) - 1,
            schedule.size(0),
            tile_rows(pairs)};
  }
};

// Checks shapes, kinds and device; the numbers in a list are trusted, since only a kernel map makes one.
inline PairTensors pair_tensors(const char* name, const Tensor& pairs, const Tensor& entries, const Tensor& tiles,
                                const Tensor& schedule, const Tensor& on) {
  using core::check_value;
  for (const Tensor* x : {&pairs, &entries, &tiles, &schedule}) {
    core::check_type(x->scalar_type() == pairs.scalar_type() &&
                         (x->scalar_type() == core::ScalarType::Int || x->scalar_type() == core::ScalarType::Long),
                     name, ": the kernel map must be all int32 or all int64, got ", toString(x->scalar_type()));
    check_value(x->device() == on.device(), name, ": the kernel map must be on the device of the features");
  }
  check_value(pairs.dim() == 2 && pairs.size(1) == 2, name, ": pairs must be (P, 2), got ", core::Shape{pairs});
  check_value(entries.dim() == 2 && entries.size(1) == 2 && entries.size(0) >= 1, name,
              ": entries must be (E + 1, 2), got ", core::Shape{entries});
  const int64_t tile = tile_rows(pairs);
  check_value(schedule.dim() == 1 && tiles.dim() == 1 && tiles.size(0) == (schedule.size(0) + tile - 1) / tile + 1,
              name, ": tiles has shape ", core::Shape{tiles}, ", which does not suit a schedule of ",
              core::Shape{schedule});
  return {core::contiguous(pairs), core::contiguous(entries), core::contiguous(tiles), core::contiguous(schedule)};
}

// Calls f<I>() with the integer type of the list.
template <class F>
void for_index(const PairTensors& list, const F& f) {
  if (list.pairs.scalar_type() == core::ScalarType::Int)
    f.template operator()<int32_t>();
  else
    f.template operator()<int64_t>();
}

}  // namespace hepops::sparse
