#include "core/philox.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::core {
namespace {

template <class T>
struct Uniform {
  const int64_t* index;
  T* numbers;  // (n, 2)
  int64_t seed;
  uint32_t step, purpose;
  HEPOPS_HD void operator()(int64_t i) const {
    const auto block = Philox(uint64_t(seed), uint64_t(index[i])).block(step, purpose);
    numbers[2 * i] = uniform<T>(block[0], block[2]);
    numbers[2 * i + 1] = uniform<T>(block[1], block[3]);
  }
};

template <class T>
struct Normal {
  const int64_t* index;
  T* numbers;  // (n, 2)
  int64_t seed;
  uint32_t step, purpose;
  HEPOPS_HD void operator()(int64_t i) const {
    const auto pair = normal2<T>(Philox(uint64_t(seed), uint64_t(index[i])).block(step, purpose));
    numbers[2 * i] = pair[0];
    numbers[2 * i + 1] = pair[1];
  }
};

uint32_t word(const char* name, int64_t value) {
  check_value(0 <= value && value <= UINT32_MAX, name, " must be in [0, 2^32), got ", value);
  return uint32_t(value);
}

template <template <class> class Numbers>
Tensor draw(const Tensor& index, int64_t seed, int64_t step, int64_t purpose, ScalarType dtype) {
  check_int64("philox: index", index);
  const Tensor i = core::contiguous(index);
  std::vector<int64_t> shape(i.sizes().begin(), i.sizes().end());
  shape.push_back(2);
  Tensor numbers = torch::stable::new_empty(i, shape, dtype);
  for_floating("philox: dtype", numbers, [&]<class T>() {
    for_each(i, i.numel(),
             Numbers<T>{in<int64_t>(i), out<T>(numbers), seed, word("philox: step", step),
                        word("philox: purpose", purpose)});
  });
  return numbers;
}

const Operators operators{
    op<draw<Uniform>>("philox_uniform(Tensor index, int seed, int step, int purpose, ScalarType dtype) -> Tensor"),
    op<draw<Normal>>("philox_normal(Tensor index, int seed, int step, int purpose, ScalarType dtype) -> Tensor"),
};

}  // namespace
}  // namespace hepops::core
