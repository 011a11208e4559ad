/* The C functions: one segment through the chip, the laws, a convolution, a spline, SU(3). Prints what it finds; a
 * function that refuses says why. Compiled as C11. */
#include <hepops/c_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(call)                                                             \
  do {                                                                         \
    if ((call) != HEPOPS_OK) {                                                 \
      fprintf(stderr, "laws: line %d: %s\n", __LINE__, hepops_error(context)); \
      return 1;                                                                \
    }                                                                          \
  } while (0)

/* An allocator that counts: what it gave out comes back. */
struct counter {
  long taken, given_back;
};

static void* take(void* user, size_t bytes, size_t alignment) {
  ((struct counter*)user)->taken++;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void give_back(void* user, void* memory, size_t bytes, size_t alignment) {
  (void)bytes, (void)alignment;
  ((struct counter*)user)->given_back++;
  free(memory);
}

/* Two halves, one after the other: a stand-in for a pool of threads. */
static int halves(void* user, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* data) {
  (void)user, (void)grain;
  if (n > 1) body(data, 0, n / 2);
  body(data, n / 2, n);
  return 0;
}

static int simulate(hepops_context* context) {
  const int64_t event[1] = {3};
  const double start[3] = {-20, 1, 2}, end[3] = {-18, 4, 7}, dE[1] = {14.0}, dEdx[1] = {2.27}, t0[1] = {0};
  const hepops_segments segments = {1, event, start, end, dE, dEdx, t0};
  hepops_simulator_config config;
  hepops_simulator* simulator;
  hepops_hits* hits;
  hepops_hits_view view;
  double charge = 0;
  hepops_simulator_config_module0(&config);
  NEED(hepops_simulator_create(context, &config, &simulator));
  NEED(hepops_simulate(context, simulator, &segments, NULL, &hits));
  hepops_hits_read(hits, &view);
  for (int64_t i = 0; i < view.count; ++i) charge += view.charge[i];
  printf("hits %lld charge %.17g arriving %.17g\n", (long long)view.count, charge, view.electrons_arriving);
  hepops_hits_destroy(hits);
  hepops_simulator_destroy(simulator);
  config.frontend.threshold = -1;
  if (hepops_simulator_create(context, &config, &simulator) != HEPOPS_INVALID_ARGUMENT || simulator) return 1;
  printf("refused: %s\n", hepops_error(context));
  return 0;
}

static int laws(hepops_context* context) {
  hepops_simulator_config nominal;
  const double dedx[2] = {2.1, 20}, distance[2] = {5, 30};
  double fraction[2], survival[2], time[2];
  hepops_simulator_config_init(&nominal);
  NEED(hepops_recombine(context, &nominal.parameters, HEPOPS_BIRKS, 2, dedx, NULL, fraction));
  NEED(hepops_drift(context, &nominal.parameters, 2, distance, survival, time, NULL, NULL));
  printf("fraction %.17g %.17g survival %.17g %.17g\n", fraction[0], fraction[1], survival[0], survival[1]);
  return 0;
}

static int convolve(hepops_context* context) {
  /* row 1 reads row 0 under offset 0, and each row itself under offset 1 */
  const int64_t read[3] = {0, 0, 1}, written[3] = {1, 0, 1}, offset[3] = {0, 1, 1};
  const float x[2] = {1, 2}, weight[2] = {10, 1};
  float y[2];
  hepops_map* map;
  NEED(hepops_map_create(context, 3, read, written, offset, 2, 2, 2, &map));
  NEED(hepops_convolve(context, map, 1, 1, x, weight, NULL, y));
  hepops_map_destroy(map);
  printf("convolved %g %g\n", y[0], y[1]);
  return y[0] != 1 || y[1] != 12;
}

static int spline(hepops_context* context) {
  const double x[1] = {0.3}, widths[4] = {0.1, -0.2, 0.4, 0}, heights[4] = {0, 0.5, -0.3, 0.2},
               slopes[3] = {0.1, 0.7, -1};
  double y[1], there[1], back[1], again[1];
  hepops_spline s = {4, HEPOPS_LINEAR, HEPOPS_NFLOWS, -5, 5, 0};
  NEED(hepops_spline_f64(context, &s, 1, x, widths, heights, slopes, y, there));
  s.inverse = 1;
  NEED(hepops_spline_f64(context, &s, 1, y, widths, heights, slopes, back, again));
  printf("spline %.17g logdet %.17g\n", y[0], there[0]);
  return fabs(back[0] - x[0]) > 1e-12 || fabs(there[0] + again[0]) > 1e-12;
}

static int su3(hepops_context* context) {
  double X[18], U[18], again[18];
  for (int k = 0; k < 18; ++k) X[k] = sin(1.0 + k);
  NEED(hepops_su3_exp(context, 1, X, U));
  NEED(hepops_su3_project(context, 1, U, again));
  double off = 0;
  for (int k = 0; k < 18; ++k) off = fmax(off, fabs(U[k] - again[k]));
  printf("su3 %.17g %.17g\n", U[0], U[1]);
  return off > 1e-14;
}

int main(void) {
  struct counter counter = {0, 0};
  const hepops_execution execution = {&counter, halves, take, give_back};
  hepops_context* context;
  if (hepops_context_create(&execution, &context) != HEPOPS_OK) {
    fprintf(stderr, "laws: %s\n", hepops_load_error());
    return 1;
  }
  if (simulate(context) || laws(context) || convolve(context) || spline(context) || su3(context)) return 1;
  hepops_context_destroy(context);
  printf("level %s, %ld blocks taken, %ld given back\n", hepops_cpu_level(), counter.taken, counter.given_back);
  return counter.taken == 0 || counter.taken != counter.given_back;
}
