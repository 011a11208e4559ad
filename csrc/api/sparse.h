#pragma once
// Sparse convolution over a given map.
#include "api/execution.h"

namespace hepops {

// Which rows meet under which kernel offset: y[written] += x[read] W[offset]. Immutable.
class SparseMap {
 public:
  SparseMap(std::span<const int64_t> read, std::span<const int64_t> written, std::span<const int64_t> offset,
            int64_t rows_read, int64_t rows_written, int64_t offsets, Execution execution = {})
      : rows_read_(rows_read), rows_written_(rows_written), offsets_(offsets), context_(std::move(execution)) {
    check_size("written", written.size(), read.size());
    check_size("offset", offset.size(), read.size());
    hepops_map* made = nullptr;
    context_.check(hepops_map_create(context_.get(), int64_t(read.size()), read.data(), written.data(), offset.data(),
                                     rows_read, rows_written, offsets, &made));
    map_.reset(made);
  }

  // x (rows_read, in), weight (offsets, in, out), bias (out) or empty -> y (rows_written, out)
  void convolve(const Context& context, int64_t in, int64_t out, std::span<const float> x,
                std::span<const float> weight, std::span<const float> bias, std::span<float> y) const {
    check_size("x", x.size(), product("x", {rows_read_, in}));
    check_size("weight", weight.size(), product("weight", {offsets_, in, out}));
    if (!bias.empty()) check_size("bias", bias.size(), product("bias", {out}));
    check_size("y", y.size(), product("y", {rows_written_, out}));
    context.check(hepops_convolve(context.get(), map_.get(), in, out, x.data(), weight.data(),
                                  bias.empty() ? nullptr : bias.data(), y.data()));
  }

  // The gradients of x, weight and bias from that of y; an empty span: not wanted.
  void convolve_backward(const Context& context, int64_t in, int64_t out, std::span<const float> grad_y,
                         std::span<const float> x, std::span<const float> weight, std::span<float> grad_x,
                         std::span<float> grad_weight, std::span<float> grad_bias) const {
    check_size("grad_y", grad_y.size(), product("grad_y", {rows_written_, out}));
    check_size("x", x.size(), product("x", {rows_read_, in}));
    check_size("weight", weight.size(), product("weight", {offsets_, in, out}));
    const auto place = [](const char* name, std::span<float> g, std::initializer_list<int64_t> sizes) -> float* {
      if (g.empty()) return nullptr;
      check_size(name, g.size(), product(name, sizes));
      return g.data();
    };
    context.check(hepops_convolve_backward(context.get(), map_.get(), in, out, grad_y.data(), x.data(), weight.data(),
                                           place("grad_x", grad_x, {rows_read_, in}),
                                           place("grad_weight", grad_weight, {offsets_, in, out}),
                                           place("grad_bias", grad_bias, {out})));
  }

 private:
  struct Destroy {
    void operator()(hepops_map* map) const { hepops_map_destroy(map); }
  };
  int64_t rows_read_, rows_written_, offsets_;
  Context context_;
  std::unique_ptr<hepops_map, Destroy> map_;
};

}  // namespace hepops
