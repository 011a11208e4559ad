#pragma once
// Hits as they are collected, column by column.
#include "sdk/context.h"

namespace hepops::sdk {

struct Hit {
  int64_t event, tpc, ix, iy, row, rank;
  double x, y, z, time, charge, adc;
};

}  // namespace hepops::sdk

struct hepops_hits {
  hepops::sdk::Resource resource;
  hepops::sdk::Array<int64_t> event, tpc, ix, iy, row, rank;
  hepops::sdk::Array<double> x, y, z, time, charge, adc;
  hepops_hits_view view{};

  explicit hepops_hits(const hepops_execution& execution)
      : resource(execution),
        event(resource),
        tpc(resource),
        ix(resource),
        iy(resource),
        row(resource),
        rank(resource),
        x(resource),
        y(resource),
        z(resource),
        time(resource),
        charge(resource),
        adc(resource) {}

  // Calls f(column, the same field of a Hit) for every column.
  template <class F>
  void for_columns(const F& f) {
    using hepops::sdk::Hit;
    f(event, &Hit::event), f(tpc, &Hit::tpc), f(ix, &Hit::ix), f(iy, &Hit::iy), f(row, &Hit::row), f(rank, &Hit::rank);
    f(x, &Hit::x), f(y, &Hit::y), f(z, &Hit::z), f(time, &Hit::time), f(charge, &Hit::charge), f(adc, &Hit::adc);
  }

  void take(const hepops::sdk::Array<hepops::sdk::Hit>& hits, int64_t count) {
    for_columns([&](auto& column, auto field) {
      column.resize(count);
      for (int64_t i = 0; i < count; ++i) column[i] = hits[i].*field;
    });
    view.count = count;
    view.event = event.data(), view.tpc = tpc.data(), view.ix = ix.data(), view.iy = iy.data();
    view.row = row.data(), view.rank = rank.data();
    view.x = x.data(), view.y = y.data(), view.z = z.data(), view.time = time.data();
    view.charge = charge.data(), view.adc = adc.data();
  }
};
