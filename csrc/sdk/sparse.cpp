// Convolutions over a given map: its triples, grouped twice (sparse/pairs.h), and the kernels of the operators.
#include "core/radix_sort.h"
#include "sdk/context.h"
#include "sdk/functions.h"
#include "sparse/column_sum.h"
#include "sparse/convolve_cpu.h"
#include "sparse/weight_gradient_cpu.h"

namespace hepops::sdk {
namespace {

// One list: the triples by (tile of the row written, offset, row written).
struct List {
  explicit List(Resource& memory) : pairs(memory), entries(memory), tiles(memory), schedule(memory) {}

  // `code` counts the triples: (tile, offset, place within the tile), which no two share.
  void group(Resource& memory, int64_t count, const int64_t* read, const int64_t* written, const int64_t* offset,
             int64_t rows_, int64_t offsets, const char* what, const Parallel& parallel) {
    constexpr int64_t tile = sparse::tile_on_cpu;
    rows = rows_;
    const int64_t num_tiles = (rows + tile - 1) / tile;
    Array<int64_t> keys(memory, count), order(memory, count), more_keys(memory, count), more(memory, count);
    for (int64_t i = 0; i < count; ++i)
      keys[i] = ((written[i] / tile) * offsets + offset[i]) * tile + written[i] % tile;
    int bits = 1;
    while (bits < 63 && (num_tiles * offsets * tile) >> bits) ++bits;
    core::Pairs<int64_t> sorted{keys.data(), order.data()}, scratch{more_keys.data(), more.data()};
    core::radix_sort_pairs<int64_t>({keys.data(), nullptr}, count, bits, sorted, scratch, parallel);

    pairs.resize(count);
    entries.resize(0);
    tiles.resize(num_tiles + 1);
    int64_t next_tile = 0, e = 0;
    for (int64_t i = 0; i < count; ++i) {
      check(i == 0 || keys[i] != keys[i - 1], "map_create: row ", written[order[i]], " ", what, " twice under offset ",
            offset[order[i]]);
      pairs[i] = {int32_t(read[order[i]]), int32_t(written[order[i]])};
      if (i > 0 && keys[i] / tile == keys[i - 1] / tile) continue;
      for (const int64_t t = written[order[i]] / tile; next_tile <= t; ++next_tile) tiles[next_tile] = int32_t(e);
      entries.grow(e + 1, e)[e] = {int32_t(i), int32_t(offset[order[i]])};
      ++e;
    }
    for (; next_tile <= num_tiles; ++next_tile) tiles[next_tile] = int32_t(e);
    entries.grow(e + 1, e)[e] = {int32_t(count), -1};
    schedule.resize(rows);
    for (int64_t r = 0; r < rows; ++r) schedule[r] = int32_t(r);
  }

  sparse::PairList<int32_t> view() const {
    return {pairs.data(),       entries.data(),   tiles.data(), schedule.data(),    pairs.size(),
            entries.size() - 1, tiles.size() - 1, rows,         sparse::tile_on_cpu};
  }

  Array<sparse::Pair<int32_t>> pairs;
  Array<sparse::Entry<int32_t>> entries;
  Array<int32_t> tiles, schedule;
  int64_t rows = 0;
};

}  // namespace
}  // namespace hepops::sdk

struct hepops_map {
  hepops::sdk::Resource resource;
  hepops::sdk::List forward, backward;
  int64_t offsets = 0;
  explicit hepops_map(const hepops_execution& execution) : resource(execution), forward(resource), backward(resource) {}
};

namespace hepops::sdk {
namespace {

void check_triples(int64_t count, const int64_t* read, const int64_t* written, const int64_t* offset, int64_t rows_read,
                   int64_t rows_written, int64_t offsets) {
  constexpr int64_t most = int64_t(1) << 31;
  const auto size = [](const char* name, int64_t n, int64_t least) {
    check(n >= least && n < most, "map_create: ", name, " must be ", least, " to 2^31 - 1, got ", n);
  };
  size("count", count, 0);
  size("rows_read", rows_read, 0);
  size("rows_written", rows_written, 0);
  size("offsets", offsets, 1);
  check(count == 0 || (read && written && offset), "map_create: an array is NULL");
  const auto within = [](const char* name, int64_t i, int64_t x, int64_t n) {
    check(x >= 0 && x < n, "map_create: ", name, " of triple ", i, " is ", x, ", expected 0 to ", n - 1);
  };
  for (int64_t i = 0; i < count; ++i) {
    within("read", i, read[i], rows_read);
    within("written", i, written[i], rows_written);
    within("offset", i, offset[i], offsets);
  }
}

hepops_status map_create(hepops_context* context, int64_t count, const int64_t* read, const int64_t* written,
                         const int64_t* offset, int64_t rows_read, int64_t rows_written, int64_t offsets,
                         hepops_map** map) {
  return guarded(context, [&] {
    check(map, "map_create: map is NULL");
    *map = nullptr;
    check_triples(count, read, written, offset, rows_read, rows_written, offsets);
    hepops_map* made = make<hepops_map>(context->resource.execution());
    try {
      const Parallel parallel = context->parallel();
      made->forward.group(context->resource, count, read, written, offset, rows_written, offsets, "is written",
                          parallel);
      made->backward.group(context->resource, count, written, read, offset, rows_read, offsets, "is read", parallel);
      made->offsets = offsets;
    } catch (...) {
      destroy(made);
      throw;
    }
    *map = made;
  });
}

void check_channels(const hepops_map* map, int64_t in, int64_t out) {
  check(map, "convolve: map is NULL");
  constexpr int64_t most = int64_t(1) << 24;  // of one side: rows are fewer than 2^31, so x and y are below 2^57 bytes
  check(in >= 1 && in <= most, "convolve: in must be 1 to 2^24, got ", in);
  check(out >= 1 && out <= most, "convolve: out must be 1 to 2^24, got ", out);
  check(map->offsets <= (int64_t(1) << 60) / in / out, "convolve: weight of ", map->offsets, " x ", in, " x ", out,
        " numbers (offsets, in, out) is more than memory holds");
}

void run(const List& list, int64_t offsets, int64_t rows_read, int64_t in, int64_t out, bool transposed, const float* x,
         const float* weight, const float* bias, float* y, const Parallel& parallel) {
  if (list.rows == 0) return;
  const sparse::Convolution<float, float, int32_t> c{x,
                                                     weight,
                                                     list.view(),
                                                     offsets,
                                                     rows_read,
                                                     in,
                                                     out,
                                                     1,
                                                     false,
                                                     transposed,
                                                     {bias, nullptr, nullptr, nullptr, 1.0f, y, nullptr, nullptr}};
  sparse::convolve_on_host(c, parallel);
}

hepops_status convolve(hepops_context* context, const hepops_map* map, int64_t in, int64_t out, const float* x,
                       const float* weight, const float* bias, float* y) {
  return guarded(context, [&] {
    check_channels(map, in, out);
    check((x || map->backward.rows == 0) && weight && (y || map->forward.rows == 0), "convolve: an array is NULL");
    run(map->forward, map->offsets, map->backward.rows, in, out, false, x, weight, bias, y, context->parallel());
  });
}

hepops_status convolve_backward(hepops_context* context, const hepops_map* map, int64_t in, int64_t out,
                                const float* grad_y, const float* x, const float* weight, float* grad_x,
                                float* grad_weight, float* grad_bias) {
  return guarded(context, [&] {
    check_channels(map, in, out);
    check(grad_y || map->forward.rows == 0, "convolve_backward: grad_y is NULL");
    const Parallel parallel = context->parallel();
    const int64_t read = map->backward.rows, written = map->forward.rows;
    if (grad_x) {  // gx[i] = sum over (i, o, k) of gy[o] W_k^T: the same sum over the other list
      check(weight, "convolve_backward: grad_x needs weight");
      run(map->backward, map->offsets, written, out, in, true, grad_y, weight, static_cast<const float*>(nullptr),
          grad_x, parallel);
    }
    if (grad_weight) {
      check(x || read == 0, "convolve_backward: grad_weight needs x");
      sparse::weight_gradient_on_host(
          sparse::WeightGradient<float, int32_t>{x, grad_y, map->forward.view(), grad_weight, map->offsets, read, in,
                                                 out, 1, false, false},
          parallel);
    }
    if (grad_bias) sparse::column_sum_on_host(grad_y, written, out, grad_bias, parallel);
  });
}

}  // namespace

void fill_sparse(Functions& f) {
  f.map_create = map_create;
  f.map_destroy = destroy<hepops_map>;
  f.convolve = convolve;
  f.convolve_backward = convolve_backward;
}

}  // namespace hepops::sdk
