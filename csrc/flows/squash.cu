#include "flows/squash.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

Squash bijection(int64_t kind) {
  core::check_value(kind >= 0 && kind <= int(Kind::Sigmoid), "squash: kind must be 0 to 2, got ", kind);
  return {Kind(kind)};
}

std::tuple<Tensor, Tensor> squash(const Tensor& x, int64_t kind, bool inverse) {
  const Squash b = bijection(kind);
  core::check_floating("squash: x", x);
  const Tensor from = core::contiguous(x);
  Tensor value = core::empty_like(from), logdet = core::empty_like(from);
  core::for_floating("squash: x", from, [&]<class T>() {
    run(from, from.numel(), 0, Forward<Squash, T, T>{b, inverse, {}, in<T>(from), out<T>(value), out<T>(logdet)});
  });
  return {value, logdet};
}

// x: of the inverse, what it gave
Tensor squash_backward(const Tensor& grad_value, const Tensor& grad_logdet, const Tensor& x, int64_t kind,
                       bool inverse) {
  const Squash b = bijection(kind);
  core::check_same_shape("squash_backward: grad_value", grad_value, x);
  core::check_same_shape("squash_backward: grad_logdet", grad_logdet, x);
  const Tensor gv = core::contiguous(grad_value), gl = core::contiguous(grad_logdet), from = core::contiguous(x);
  Tensor grad_x = core::empty_like(from);
  core::for_floating("squash: x", from, [&]<class T>() {
    const Backward<Squash, T, T> f{b, inverse, {}, in<T>(from), in<T>(gv), in<T>(gl), out<T>(grad_x), nullptr};
    run(from, from.numel(), 0, f);
  });
  return grad_x;
}

const core::Operators operators{
    core::op<squash>("flows_squash(Tensor x, int kind, bool inverse) -> (Tensor, Tensor)"),
    core::op<squash_backward>(
        "flows_squash_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, int kind, bool inverse) -> Tensor"),
};

}  // namespace
}  // namespace hepops::flows
