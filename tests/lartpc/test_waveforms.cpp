#include "lartpc/waveforms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "lartpc/waveforms_cpu.h"

namespace hepops::lartpc {
namespace {

// ---- weights

struct Shares {
  std::vector<double> w;
  int64_t size;
  double sum(int set, double power = 0, double first = 0) const {
    double total = 0;
    for (int64_t k = 0; k < size; ++k) total += w[set * size + k] * (power == 0 ? 1.0 : first + double(k));
    return total;
  }
};

Shares bins_of(double centre, double sigma, double width, double bin, double cut = 6) {
  const double reach = cut * sigma + 0.5 * width;
  const int64_t first = floor_int((centre - reach) / bin), n = floor_int((centre + reach) / bin) - first + 1;
  Shares shares{std::vector<double>(4 * n), n};
  share_bins(shares.w.data(), n, true, centre, sigma, width, bin, first, n);
  return shares;
}

Shares ticks_of(double fraction, double sigma, double width, double cut = 6) {
  const int64_t half = 1 + int64_t(cut * sigma + 0.5 * width + 1);
  Shares shares{std::vector<double>(4 * (2 * half + 2)), 2 * half + 2};
  share_ticks(shares.w.data(), shares.size, true, fraction, sigma, width, half);
  return shares;
}

constexpr double centres[] = {-3.21, -0.5, 0.0, 0.13, 0.5, 0.999, 17.25};
constexpr double sigmas[] = {0.0, 1e-9, 0.01, 0.3, 1.0, 3.0}, widths[] = {0.0, 1e-9, 0.02, 0.4, 2.5};

TEST(WaveWeights, AreSharesOfOne) {
  for (const double c : centres)
    for (const double s : sigmas)
      for (const double w : widths) {
        EXPECT_NEAR(bins_of(c, s, w, 1.0).sum(0), 1.0, 1e-15) << c << " " << s << " " << w;
        const double fraction = c - std::floor(c);
        EXPECT_NEAR(ticks_of(fraction, s, w).sum(0), 1.0, 5e-15) << c << " " << s << " " << w;
        for (int set = 1; set < 4; ++set) {
          EXPECT_NEAR(bins_of(c, s, w, 1.0).sum(set), 0.0, 1e-13) << c << " " << s << " " << w;
          EXPECT_NEAR(ticks_of(fraction, s, w).sum(set), 0.0, 1e-12) << c << " " << s << " " << w;
        }
      }
}

// Linear interpolation keeps the mean, whatever the blur, and so does cutting the tails: sum j W[j] = fraction.
TEST(WaveWeights, KeepTheMeanTime) {
  for (const double fraction : {0.0, 0.1, 0.5, 0.77, 1.0})
    for (const double s : sigmas)
      for (const double w : widths) {
        const Shares shares = ticks_of(fraction, s, w);
        const double first = -double(shares.size / 2 - 1);
        EXPECT_NEAR(shares.sum(0, 1, first), fraction, 2e-13) << fraction << " " << s << " " << w;
        if (s == 0 && w == 0) continue;  // a step: its slopes are those of one side
        EXPECT_NEAR(shares.sum(1, 1, first), 1.0, 1e-12) << fraction << " " << s << " " << w;
        EXPECT_NEAR(shares.sum(2, 1, first), 0.0, 1e-11) << fraction << " " << s << " " << w;
        EXPECT_NEAR(shares.sum(3, 1, first), 0.0, 1e-11) << fraction << " " << s << " " << w;
      }
}

TEST(WaveWeights, OfAPointAreLinearInterpolation) {
  for (const double fraction : {0.0, 0.25, 0.9}) {
    const Shares shares = ticks_of(fraction, 0, 0);
    const int64_t here = shares.size / 2 - 1;
    for (int64_t k = 0; k < shares.size; ++k)
      EXPECT_NEAR(shares.w[k], k == here ? 1 - fraction : k == here + 1 ? fraction : 0.0, 1e-15) << k;
  }
}

// The mean of the bins' centres: beyond a bin's blur, Poisson's sum leaves exp(-2 pi^2 sigma^2) / pi.
TEST(WaveWeights, KeepTheMeanPlace) {
  for (const double c : centres)
    for (const double s : {0.5, 0.7, 1.0, 3.0})
      for (const double w : widths) {
        const double first = double(floor_int(c - 6 * s - 0.5 * w));
        EXPECT_NEAR(bins_of(c, s, w, 1.0).sum(0, 1, first) + 0.5, c, std::exp(-19.7 * s * s) / 3.14 + 1e-8)
            << c << " " << s << " " << w;
      }
}

TEST(WaveWeights, SlopesAgreeWithDifferences) {
  const double h = 1e-6;
  for (const double s : {0.1, 0.8})
    for (const double w : {0.001, 0.5}) {
      const int64_t first = -8, n = 16, half = 7;
      const auto bins = [&](double c, double sigma, double width) {
        Shares shares{std::vector<double>(4 * n), n};
        share_bins(shares.w.data(), n, true, c, sigma, width, 1.0, first, n);
        return shares;
      };
      const auto ticks = [&](double f, double sigma, double width) {
        Shares shares{std::vector<double>(4 * n), n};
        share_ticks(shares.w.data(), n, true, f, sigma, width, half);
        return shares;
      };
      const auto compare = [&](auto shares, const char* name) {
        const Shares at = shares(0.3, s, w);
        const Shares up[] = {shares(0.3 + h, s, w), shares(0.3, s + h, w), shares(0.3, s, w + h)};
        const Shares down[] = {shares(0.3 - h, s, w), shares(0.3, s - h, w), shares(0.3, s, w - h)};
        for (int set = 0; set < 3; ++set)
          for (int64_t k = 0; k < n; ++k)
            EXPECT_NEAR(at.w[(set + 1) * n + k], (up[set].w[k] - down[set].w[k]) / (2 * h), 1e-8)
                << name << " " << set << " " << k << " sigma " << s << " width " << w;
      };
      compare(bins, "bins");
      compare(ticks, "ticks");
    }
}

// ---- the plain form against the tuned one

// Random nodes on a small plane, a random table, rows laid out as hepops.lartpc.waveforms.plan does.
template <class T>
struct Scene {
  Plane plane{.pitch = 0.44, .dt = 0.1, .bins = 10, .reach = 2, .cut = 5};
  static constexpr int pixels = 6, B = 25, stride = 96, P = 40;
  int64_t N, total = 0, bins_u = 0, bins_v = 0, taps = 0;
  int M, K;
  std::vector<double> field, node_tangents, velocity_tangents;
  std::vector<Place> places;
  std::vector<T> r, rv, lead, leadv, potential, weights;
  std::vector<int64_t> pair_offset{0}, pair, first, offset{0}, node_row;
  Lead mode;
  double velocity = 0.16;

  Scene(int64_t n, Lead lead_mode, int tangents, int length = 83, unsigned seed = 1)
      : N(n), M(length), K(tangents), field(num_fields * n), mode(lead_mode) {
    std::mt19937 random(seed);
    const auto uniform = [&](double low, double high) {
      return std::uniform_real_distribution<double>(low, high)(random);
    };
    for (int64_t i = 0; i < n; ++i) {
      const double near = i % 3 == 0 ? 0.02 : 1.0;  // a third of the nodes are made within the response's reach
      const double depth_i = near * uniform(0.0, 30.0);
      const double values[num_fields] = {uniform(0.5, 2),
                                         uniform(-0.05, pixels * plane.pitch + 0.05),  // some beside the plane
                                         uniform(-0.05, pixels * plane.pitch + 0.05),
                                         depth_i / velocity + uniform(-20, 20),
                                         i % 5 == 0 ? 0.0 : uniform(0, 0.06),
                                         i % 5 == 0 ? 0.0 : uniform(0, 0.3),
                                         i % 4 == 0 ? 0.0 : uniform(0, 0.1),
                                         i % 4 == 1 ? 0.0 : uniform(0, 0.1),
                                         i % 4 == 2 ? 0.0 : uniform(0, 0.6),
                                         depth_i};
      for (int k = 0; k < num_fields; ++k) field[k * n + i] = values[k];
    }
    const auto numbers = [&](auto& x, size_t size) {
      x.resize(size);
      for (auto& value : x) value = uniform(-1, 1);
    };
    numbers(node_tangents, size_t(K) * 5 * n);
    numbers(velocity_tangents, K);
    for (auto* table : {&r, &rv, &lead, &leadv}) {
      numbers(*table, size_t(B) * B * stride);
      for (int64_t k = 0; k < B * B * stride; ++k)  // as Response.make leaves it: nothing beyond p = M
        if (k % stride > M) (*table)[k] = 0;
    }
    numbers(potential, size_t(B) * B * P);
    lay_out();
  }

  Nodes nodes() const { return {field.data(), N}; }

  void lay_out() {
    const int side = plane.side();
    std::map<int64_t, std::vector<int64_t>> reached;
    for (int64_t i = 0; i < N; ++i) {
      places.push_back(place(nodes(), i, plane, velocity, M, mode));
      const int64_t cu = pixel_under(nodes()(u, i), plane), cv = pixel_under(nodes()(v, i), plane);
      for (int64_t slot = 0; slot < side * side; ++slot) {
        const int64_t pu = cu + slot / side - plane.reach, pv = cv + slot % side - plane.reach;
        if (pu >= 0 && pu < pixels && pv >= 0 && pv < pixels)
          reached[pv * pixels + pu].push_back(i * side * side + slot);
      }
      bins_u = std::max(bins_u, places[i].bins_u), bins_v = std::max(bins_v, places[i].bins_v);
      taps = std::max(taps, 2 * places[i].half + 2);
    }
    node_row.assign(N * side * side, -1);
    for (const auto& [pixel, pairs] : reached) {
      int64_t low = INT64_MAX, high = INT64_MIN;
      for (const int64_t j : pairs) {
        node_row[j] = int64_t(first.size());
        low = std::min(low, places[j / (side * side)].first), high = std::max(high, places[j / (side * side)].last);
      }
      pair.insert(pair.end(), pairs.begin(), pairs.end());
      pair_offset.push_back(int64_t(pair.size()));
      first.push_back(low), offset.push_back(offset.back() + high - low);
    }
    total = offset.back();
    const int64_t size = bins_u + bins_v + taps;
    weights.assign(N * 4 * size, T(0));
    for (int64_t i = 0; i < N; ++i) {
      T* w = weights.data() + i * 4 * size;
      weigh(Weights<T>{w, w + bins_u, w + bins_u + bins_v, size}, true, nodes(), i, places[i], plane);
    }
  }

  WaveRow<T> rows(T* values, T* tangents) const {
    return {nodes(),
            places.data(),
            weights.data(),
            bins_u,
            bins_v,
            taps,
            4 * (bins_u + bins_v + taps),
            plane,
            {r.data(), rv.data(), lead.data(), leadv.data(), potential.data(), B, M, stride, P, mode, 0.02},
            {pair_offset.data(), pair.data(), first.data(), offset.data(), values, tangents, total},
            {node_tangents.data(), velocity_tangents.data(), tangents ? K : 0}};
  }
};

template <class T>
struct Result {
  std::vector<T> values, tangents;
  std::vector<double> nodes, velocity;
};

template <class T>
Result<T> plain(const Scene<T>& scene, bool tangents, const T* grad) {
  Result<T> result{std::vector<T>(scene.total), std::vector<T>(scene.K * scene.total),
                   std::vector<double>(num_fields * scene.N), std::vector<double>(scene.N)};
  std::vector<std::byte> memory(WaveRow<T>::scratch(scene.M, scene.K) + WaveNode<T>::scratch(1));
  const core::Team team{0, 1, memory.data()};
  const WaveRow<T> f = scene.rows(result.values.data(), tangents ? result.tangents.data() : nullptr);
  for (size_t row = 0; row < scene.first.size(); ++row) f(int64_t(row), team);
  const WaveNode<T> b{scene.rows(nullptr, nullptr), grad, scene.node_row.data(), result.nodes.data(),
                      result.velocity.data()};
  for (int64_t i = 0; i < scene.N; ++i) b(i, team);
  return result;
}

template <class T>
Result<T> tuned(const Scene<T>& scene, bool tangents, const T* grad) {
  Result<T> result{std::vector<T>(scene.total), std::vector<T>(scene.K * scene.total),
                   std::vector<double>(num_fields * scene.N), std::vector<double>(scene.N)};
  WaveScratch<T> scratch(scene.stride);
  const WaveRow<T> f = scene.rows(result.values.data(), tangents ? result.tangents.data() : nullptr);
  for (size_t row = 0; row < scene.first.size(); ++row) wave_row(f, int64_t(row), scratch);
  const WaveNode<T> b{scene.rows(nullptr, nullptr), grad, scene.node_row.data(), result.nodes.data(),
                      result.velocity.data()};
  ReverseScratch<T> reverse(scene.stride);
  for (int64_t i = 0; i < scene.N; i += batch) wave_nodes(b, i, int(std::min<int64_t>(batch, scene.N - i)), reverse);
  return result;
}

template <class X>
double largest(const X& x) {
  double size = 0;
  for (const auto value : x) size = std::max(size, std::abs(double(value)));
  return size;
}

template <class X>
void expect_near(const X& ours, const X& theirs, double digits, const char* name) {
  ASSERT_EQ(ours.size(), theirs.size());
  const double size = largest(theirs);
  EXPECT_GT(size, 0) << name;
  for (size_t k = 0; k < ours.size(); ++k) ASSERT_NEAR(ours[k], theirs[k], digits * size) << name << " " << k;
}

template <class T>
class Waves : public testing::Test {};
using Kinds = testing::Types<float, double>;
TYPED_TEST_SUITE(Waves, Kinds);

// Both sum some hundred products; in another order, and the reverse mode's float form in float where the plain one is
// in double.
TYPED_TEST(Waves, TunedFormIsThePlainOne) {
  using T = TypeParam;
  const double digits = 200 * std::numeric_limits<T>::epsilon();
  for (const Lead mode : {drop, point, table})
    for (const int length : {83, 64, 1}) {
      const Scene<T> scene(60, mode, 3, length);
      std::vector<T> grad(scene.total);
      std::mt19937 random(3);
      for (T& g : grad) g = T(std::uniform_real_distribution<double>(-1, 1)(random));
      for (const bool tangents : {false, true}) {
        const auto ours = tuned(scene, tangents, grad.data()), theirs = plain(scene, tangents, grad.data());
        expect_near(ours.values, theirs.values, digits, "values");
        if (tangents) expect_near(ours.tangents, theirs.tangents, digits, "tangents");
        expect_near(ours.velocity, theirs.velocity, digits, "velocity");
        for (int k = 0; k < num_fields; ++k) {
          if (k == depth && mode == drop) continue;  // no slope
          const auto field = [&](const Result<T>& result) {
            return std::vector<double>(result.nodes.begin() + k * scene.N, result.nodes.begin() + (k + 1) * scene.N);
          };
          expect_near(field(ours), field(theirs), digits, ("field " + std::to_string(k)).c_str());
        }
      }
    }
}

TYPED_TEST(Waves, SomeNodesAreMadeWithinReachOfTheResponse) {
  const Scene<TypeParam> scene(60, point, 0);
  int64_t within = 0, whole = 0;
  for (const Place& at : scene.places) at.start > 0 ? ++within : ++whole;
  EXPECT_GT(within, 10);
  EXPECT_GT(whole, 10);
}

// The sum over time of a far node's currents is q times the sum of what its bins induce.
TYPED_TEST(Waves, KeepTheChargeOfTheTable) {
  using T = TypeParam;
  const Scene<T> scene(40, drop, 0);
  const auto result = plain(scene, false, std::vector<T>(scene.total, T(1)).data());
  double sum = 0, terms = 0;
  for (const T x : result.values) sum += double(x) * scene.plane.dt, terms += std::abs(double(x)) * scene.plane.dt;
  double reverse = 0;  // with a gradient of 1 everywhere, q dL/dq of all nodes is that sum
  for (int64_t i = 0; i < scene.N; ++i)
    reverse += result.nodes[charge * scene.N + i] * scene.field[charge * scene.N + i] * scene.plane.dt;
  EXPECT_NEAR(sum, reverse, 10 * std::numeric_limits<T>::epsilon() * terms);
}

// Forward and reverse mode are one linear map: <g, J t> = <J^T g, t>.
TEST(WavesInDouble, TangentsAreTheTransposeOfGradients) {
  for (const Lead mode : {drop, point, table}) {
    const Scene<double> scene(60, mode, 2);
    std::vector<double> grad(scene.total);
    std::mt19937 random(4);
    for (double& g : grad) g = std::uniform_real_distribution<double>(-1, 1)(random);
    const auto result = plain(scene, true, grad.data());
    for (int k = 0; k < scene.K; ++k) {
      double forward = 0, reverse = 0, size = 0;
      for (int64_t j = 0; j < scene.total; ++j) forward += grad[j] * result.tangents[k * scene.total + j];
      constexpr int fields[] = {charge, time, sigma, sigma_time, width_time};
      for (int64_t i = 0; i < scene.N; ++i) {
        for (int f = 0; f < 5; ++f) {
          const double term = result.nodes[fields[f] * scene.N + i] * scene.node_tangents[(k * 5 + f) * scene.N + i];
          reverse += term, size += std::abs(term);
        }
        reverse += result.velocity[i] * scene.velocity_tangents[k];
      }
      EXPECT_NEAR(forward, reverse, 1e-13 * size);
    }
  }
}

TEST(WavesInDouble, QuadrantIsSymmetricAboutAPixel) {
  for (int64_t pixel : {-2, 0, 3})
    for (int64_t b = 0; b < 30; ++b) {
      const int64_t middle = pixel * 10 + 5;
      EXPECT_EQ(quadrant(middle + b, pixel, 10), b);
      EXPECT_EQ(quadrant(middle - 1 - b, pixel, 10), b);
    }
}

TEST(WavesInDouble, FloorsBelowZero) {
  EXPECT_EQ(floor_int(-0.5), -1);
  EXPECT_EQ(floor_int(-1.0), -1);
  EXPECT_EQ(floor_int(0.999), 0);
  EXPECT_EQ(floor_int(-1e15 - 0.5), -1000000000000001);
}

}  // namespace
}  // namespace hepops::lartpc
