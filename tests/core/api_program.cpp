// A program against the installed hepops::core: what the C++ classes add to the C functions, and laws that their
// numbers obey. Prints each failure; test_cpp_package.py builds and runs it.
#include <hepops/hepops.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

template <class E, class F>
void expect_throw(const char* part, const F& f) {
  try {
    f();
    expect(false, part);
  } catch (const E& error) {
    expect(std::string(error.what()).find(part) != std::string::npos, error.what());
  }
}

// Memory that is counted, and that ends.
struct Counted : std::pmr::memory_resource {
  std::atomic<long> blocks{0}, left{1L << 40};
  void* do_allocate(size_t bytes, size_t alignment) override {
    if ((left -= long(bytes)) < 0) throw std::bad_alloc();
    ++blocks;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, size_t bytes, size_t alignment) override {
    --blocks;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

struct MyError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class T>
std::vector<T> normal(size_t n, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<T> law;
  std::vector<T> x(n);
  for (T& value : x) value = law(random);
  return x;
}

template <class T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

void simulate() {
  const std::vector<int64_t> event{1};
  const std::vector<double> start{-20, 1, 2}, end{-18, 4, 7}, dE{14}, dEdx{2.27}, t0{0}, none;
  const hepops::Segments segments{event, start, end, dE, dEdx, t0};
  const hepops::Simulator plain(hepops::Config::module0());
  const hepops::Hits expected = plain(segments, 3);
  expect(expected.size() > 10, "hits");

  Counted memory;
  {
    std::atomic<bool> fails{false};
    hepops::Execution execution{[&](int64_t n, int64_t, const std::function<void(int64_t, int64_t)>& body) {
                                  if (fails) throw MyError("mine");
                                  std::thread other([&] { body(0, n / 2); });
                                  body(n / 2, n);
                                  other.join();
                                },
                                &memory};
    const hepops::Simulator simulator(hepops::Config::module0(), execution);
    hepops::Hits hits = simulator(segments, 3);
    expect(hits.size() == expected.size(), "as many hits on two threads");
    for (size_t i = 0; i < hits.size(); ++i) expect(hits.charge[i] == expected.charge[i], "the same charge");
    const hepops::Hits moved = std::move(hits);
    expect(moved.column(moved.time)[0] == expected.time[0], "hits move");
    const long held = memory.blocks;
    fails = true;
    expect_throw<MyError>("mine", [&] { simulator(segments); });
    fails = false;
    memory.left = 1000;
    bool out_of_memory = false;
    try {
      simulator(segments);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
    expect(out_of_memory && memory.blocks == held, "memory that ends is bad_alloc, and nothing is lost");
  }
  expect(memory.blocks == 0, "all memory went back");

  expect_throw<std::invalid_argument>("dE has 0 numbers, expected 1",
                                      [&] { plain({event, start, end, none, dEdx, t0}); });
  expect_throw<std::invalid_argument>("seed must not be negative, got -4", [&] { plain(segments, -4); });
  hepops::Config config;
  expect_throw<std::invalid_argument>("needs a TPC", [&] { hepops::Simulator{config}; });
  config = hepops::Config::module0();
  config.pixel_threshold = {1, 2};
  expect_throw<std::invalid_argument>("pixel_threshold has 2 numbers, expected 78400",
                                      [&] { hepops::Simulator{config}; });
  config.pixel_threshold.clear();
  config.response = {1};
  config.response_shape.bins_x = config.response_shape.bins_y = int64_t(1) << 32;
  config.response_shape.ticks = 1;
  expect_throw<std::invalid_argument>("response cannot have 4294967296 x 4294967296 x 1 numbers",
                                      [&] { hepops::Simulator{config}; });
}

// <W x, g> is linear in each: <y, g> = <x, grad_x> = <W, grad_W>
void sparse() {
  constexpr int64_t n = 600, K = 5, in = 9, out = 6;
  std::vector<int64_t> read, written, offset;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = 0; i < n; ++i)
      if ((i * 7 + k) % 3) read.push_back(i), written.push_back((i + 11 * k) % n), offset.push_back(k);
  const hepops::SparseMap map(read, written, offset, n, n, K);
  const hepops::Context context;
  const auto x = normal<float>(n * in, 1), W = normal<float>(K * in * out, 2), g = normal<float>(n * out, 3);
  std::vector<float> y(n * out), gx(n * in), gW(W.size()), gb(out);
  map.convolve(context, in, out, x, W, {}, y);
  map.convolve_backward(context, in, out, g, x, W, gx, gW, gb);
  const double scale = std::sqrt(dot(y, y) * dot(g, g)), value = dot(y, g);
  expect(scale > 1 && std::abs(value - dot(x, gx)) < 1e-5 * scale, "<Wx, g> = <x, W^T g>");
  expect(std::abs(value - dot(W, gW)) < 1e-5 * scale, "<Wx, g> = <W, gW>");
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += g[i * out + 2];
  expect(std::abs(gb[2] - sum) < 1e-4, "the bias' gradient is the column's sum");
  expect_throw<std::invalid_argument>("y has 1 numbers", [&] {
    std::vector<float> small(1);
    map.convolve(context, in, out, x, W, {}, small);
  });
  expect_throw<std::invalid_argument>("x cannot have 600 x -1 numbers",
                                      [&] { map.convolve(context, -1, out, x, W, {}, y); });
  expect_throw<std::invalid_argument>("weight cannot have 5 x 9 x 4611686018427387904 numbers",
                                      [&] { map.convolve(context, in, int64_t(1) << 62, x, W, {}, y); });
}

template <class T>
void spline(double tolerance) {
  constexpr size_t n = 100, K = 8;
  hepops_spline s{K, HEPOPS_LINEAR, HEPOPS_NFLOWS, -3, 3, 0};
  const auto x = normal<T>(n, 4), w = normal<T>(n * K, 5), h = normal<T>(n * K, 6), d = normal<T>(n * (K - 1), 7);
  std::vector<T> y(n), up(n), back(n), down(n);
  const hepops::Context context;
  hepops::spline<T>(context, s, {x, w, h, d}, y, up);
  // the gradient of sum(y) along x is the slope, e^logdet
  std::vector<T> one(n, T(1)), zero(n, T(0)), gx(n), gw(n * K), gh(n * K), gd(n * (K - 1));
  hepops::spline_backward<T>(context, s, one, zero, {x, w, h, d}, {gx, gw, gh, gd});
  for (size_t i = 0; i < n; ++i)
    expect(std::abs(double(gx[i]) - std::exp(double(up[i]))) < tolerance * std::exp(double(up[i])), "dy/dx = e^logdet");
  s.inverse = 1;
  hepops::spline<T>(context, s, {y, w, h, d}, back, down);
  for (size_t i = 0; i < n; ++i) expect(std::abs(double(back[i] - x[i])) < tolerance, "the inverse");
  expect_throw<std::invalid_argument>("slopes has", [&] { hepops::spline<T>(context, s, {x, w, h, h}, y, up); });
  s.bins = -8;
  expect_throw<std::invalid_argument>("widths cannot have 100 x -8 numbers",
                                      [&] { hepops::spline<T>(context, s, {x, w, h, d}, y, up); });
}

void su3() {
  const hepops::Context context;
  const std::vector<int64_t> extents{3, 2};
  const size_t size = 18 * 2 * 6;
  const auto M = normal<double>(size, 8);
  std::vector<double> U(size), again(size), A(size), E(size);
  hepops::su3::project(context, M, U);
  hepops::su3::project(context, U, again);
  for (size_t i = 0; i < size; ++i) expect(std::abs(U[i] - again[i]) < 1e-13, "a projection stays");
  hepops::su3::exp(context, M, E);
  hepops::su3::project(context, E, again);
  for (size_t i = 0; i < size; ++i) expect(std::abs(E[i] - again[i]) < 1e-12, "an exponential is in the group");
  hepops::su3::staples(context, extents, 1, 0, U, A);
  // every plaquette holds a link of each of its four sides: the sum over the links counts it four times
  double sum[2] = {};
  for (size_t m = 0; m < size / 18; ++m)
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const double *u = &U[m * 18 + 2 * (3 * i + j)], *a = &A[m * 18 + 2 * (3 * j + i)];
        sum[m >= 6] += u[0] * a[0] - u[1] * a[1];  // Re tr U A, direction by direction
      }
  expect(std::abs(sum[0]) > 1e-3 && std::abs(sum[0] - sum[1]) < 1e-12, "both directions see each plaquette twice");
  expect_throw<std::invalid_argument>("expected 18 for each matrix", [&] {
    hepops::su3::exp(context, std::span(M).first(17), std::span(E).first(17));
  });
  // 18 x 2 x 2^32 x 2^32 is 0 in 64 bits, which an empty array would have
  const std::vector<double> none;
  std::vector<double> nothing;
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{int64_t(1) << 32, int64_t(1) << 32}, {3, -2}})
    expect_throw<std::invalid_argument>("links cannot have 18 x 2 x",
                                        [&] { hepops::su3::staples(context, wrong, 1, 0, none, nothing); });
  expect_throw<std::invalid_argument>("extents must be of 1 to 4 dimensions, got 5", [&] {
    hepops::su3::staples(context, std::vector<int64_t>(5, 2), 1, 0, none, nothing);
  });
}

}  // namespace

int main() {
  simulate();
  sparse();
  spline<float>(1e-4);
  spline<double>(1e-11);
  su3();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
