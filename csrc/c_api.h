/* hepops for C, and for every language that calls C: simulate segments to hits, sparse convolutions of given maps,
 * splines, SU(3). No torch, no Python. Link hepops::core (libhepops_core.so); C++ programs take hepops/hepops.h.
 *
 * Conventions: units cm, us, MeV, kV/cm, e. Arrays are the caller's, contiguous, row by row. No function throws, keeps
 * global state or reads a file. A context belongs to one thread at a time and holds the message of its last error;
 * simulators and maps do not change once they are made: any number of threads may use one, each with its own context.
 * Results do not depend on the number of threads. Sizes whose product no memory holds are HEPOPS_INVALID_ARGUMENT where
 * they are named, else HEPOPS_OUT_OF_MEMORY.
 *
 * The library picks the x86-64 level (v2, v3, v4) of the processor when it is first called; the environment variable
 * HEPOPS_CPU_LEVEL takes its place. */
#ifndef HEPOPS_C_API_H
#define HEPOPS_C_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEPOPS_API __attribute__((visibility("default")))

/* Raised when a struct or a function changes its meaning; new functions do not change it. */
#define HEPOPS_ABI 1

typedef enum hepops_status {
  HEPOPS_OK = 0,
  HEPOPS_INVALID_ARGUMENT = 1, /* a value or a shape: the message names it, with what was received */
  HEPOPS_OUT_OF_MEMORY = 2,    /* the allocator returned NULL */
  HEPOPS_FAILED = 3            /* all else, the caller's parallel_for among it */
} hepops_status;

/* ---- who computes, and where memory comes from ------------------------------------------------------------------ */

/* Runs body(data, first, last) on ranges that together are [0, n), each once; `grain` is the least that is worth a
 * thread. Returns 0, or another number where it failed: the call then returns HEPOPS_FAILED. */
typedef int (*hepops_parallel_for)(void* user, int64_t n, int64_t grain,
                                   void (*body)(void* data, int64_t first, int64_t last), void* data);

/* NULL for any function: one thread; malloc. All that grows with the data comes from `allocate`; scratch of a fixed
 * size per thread (some 100 kB) does not. Both must be callable from any thread that parallel_for uses. */
typedef struct hepops_execution {
  void* user;
  hepops_parallel_for parallel_for;
  void* (*allocate)(void* user, size_t bytes, size_t alignment);
  void (*deallocate)(void* user, void* memory, size_t bytes, size_t alignment);
} hepops_execution;

typedef struct hepops_context hepops_context;

/* execution may be NULL; it is copied. What it names must outlive the context and all that was made with it. */
HEPOPS_API hepops_status hepops_context_create(const hepops_execution* execution, hepops_context** context);
HEPOPS_API void hepops_context_destroy(hepops_context* context);
/* The message of the last call with this context that failed, "" where the last one did not. Valid until the next. */
HEPOPS_API const char* hepops_error(const hepops_context* context);
/* Where no context could be made: why (a level that is not there, say). Never NULL. */
HEPOPS_API const char* hepops_load_error(void);
HEPOPS_API int hepops_abi(void);
HEPOPS_API const char* hepops_version(void);
HEPOPS_API const char* hepops_cpu_level(void); /* the level in use: "v2", "v3", "v4" or "generic" */

/* ---- liquid-argon TPC: segments to hits ------------------------------------------------------------------------- */

typedef struct hepops_tpc { /* a drift volume with its pixel plane; x drift, y up, z beam */
  double anode, cathode;    /* x [cm] */
  double y[2], z[2];        /* edges of the plane, low and high [cm] */
  int64_t nx, ny;           /* pixels along z, along y */
} hepops_tpc;

typedef struct hepops_frontend { /* LArPix; times in ticks */
  double threshold;              /* [e] */
  int64_t hold, latency, busy, reset;
  double reset_noise, uncorrelated_noise, discriminator_noise; /* [e] */
  double buffer_risetime;                                      /* [us], 0: no filter */
  double gain;                                                 /* [mV/e] */
  double v_ped, v_cm, v_ref;                                   /* [mV] */
  int64_t adc_bits;
} hepops_frontend;

typedef struct hepops_parameters {
  double lifetime;                                     /* [us] */
  double efield;                                       /* [kV/cm] */
  double birks_a, birks_k;                             /* [1], [(kV/cm)(g/cm2)/MeV] */
  double transverse_diffusion, longitudinal_diffusion; /* [cm2/us] */
  double box_alpha, box_beta;                          /* [1], [(kV/cm)(g/cm2)/MeV] */
  double ellipsoid_ratio;                              /* [1] */
  double density;                                      /* [g/cm3] */
  double temperature;                                  /* [K] */
  double w_ion;                                        /* [MeV] */
} hepops_parameters;

typedef enum hepops_recombination { HEPOPS_BIRKS = 0, HEPOPS_BOX = 1, HEPOPS_ELLIPSOID = 2 } hepops_recombination;

/* Current of a unit charge that starts at the cathode, by bins from a pixel's centre (bins_x, bins_y, ticks) [1/us]. */
typedef struct hepops_response_table {
  const double* current;
  int64_t bins_x, bins_y, ticks;
  double tick;         /* [us] */
  double velocity;     /* for which the table was made [cm/us] */
  int64_t bins;        /* per pixel, even */
  double drift_length; /* from the table's start to the plane [cm]; 0: the table ends at the plane */
} hepops_response_table;

typedef struct hepops_simulator_config {
  size_t size; /* of this struct, as hepops_simulator_config_init sets it */
  const hepops_tpc* tpcs;
  int64_t num_tpcs;
  double pixel_pitch; /* [cm] */
  double tick;        /* [us] */
  hepops_frontend frontend;
  hepops_parameters parameters;
  const hepops_response_table* table; /* NULL: a square pad in a grounded plane */
  const double* thresholds;           /* [e] of each pixel, ix + nx iy within a TPC, one TPC after the other; or NULL */
  double step;                        /* longest piece of track that is one blob [cm] */
  int64_t recombination;              /* hepops_recombination */
  int64_t precision;                  /* of currents and charges: 32 or 64 bits */
  int64_t reach;                      /* pixels on each side that see a charge, 1 to 16 */
  int64_t length;                     /* ticks before arrival that are resolved */
  int64_t lead;                       /* 0 leaves out what was induced before them */
  int64_t chunk;                      /* blobs at a time: bounds the memory, not the result */
} hepops_simulator_config;

typedef struct hepops_segments { /* straight energy deposits, of any number of events */
  int64_t count;
  const int64_t* event; /* >= 0 */
  const double* start;  /* (count, 3) x y z [cm] */
  const double* end;    /* (count, 3) */
  const double* dE;     /* [MeV] */
  const double* dEdx;   /* [MeV/cm] */
  const double* t0;     /* [us] */
} hepops_segments;

typedef struct hepops_simulate_options {
  int64_t seed; /* >= 0: the clocked chip with its noise; -1: noise-free and continuous */
} hepops_simulate_options;

typedef struct hepops_hits_view { /* sorted by (event, tpc, iy, ix, time); valid until the hits are destroyed */
  int64_t count;
  const int64_t *event, *tpc, *ix, *iy;
  const int64_t* row;                        /* counts the pixels that saw a current */
  const int64_t* rank;                       /* 0, 1 ... within a pixel of an event */
  const double *x, *y, *z;                   /* [cm] */
  const double* time;                        /* [us] */
  const double* charge;                      /* [e] */
  const double* adc;                         /* counts; whole numbers where there is a seed */
  int64_t segments_outside;                  /* of which no part lies in a drift volume */
  double energy_outside;                     /* [MeV] */
  double electrons_arriving, electrons_lost; /* at the anodes; beside the planes */
  int64_t rejected;                          /* silent resets */
  int64_t pixels;                            /* rows */
} hepops_hits_view;

typedef struct hepops_simulator hepops_simulator;
typedef struct hepops_hits hepops_hits;

/* Nominal parameters, LArPix's constants, no TPC. */
HEPOPS_API void hepops_simulator_config_init(hepops_simulator_config* config);
/* The same with the first ArgonCube module of DUNE's near detector: Detector.module0() of the Python package. */
HEPOPS_API void hepops_simulator_config_module0(hepops_simulator_config* config);
/* Copies all that it needs. */
HEPOPS_API hepops_status hepops_simulator_create(hepops_context* context, const hepops_simulator_config* config,
                                                 hepops_simulator** simulator);
HEPOPS_API void hepops_simulator_destroy(hepops_simulator* simulator);
/* options may be NULL: noise-free. */
HEPOPS_API hepops_status hepops_simulate(hepops_context* context, const hepops_simulator* simulator,
                                         const hepops_segments* segments, const hepops_simulate_options* options,
                                         hepops_hits** hits);
HEPOPS_API void hepops_hits_destroy(hepops_hits* hits);
HEPOPS_API void hepops_hits_read(const hepops_hits* hits, hepops_hits_view* view);

/* The laws alone, element by element. dedx [MeV/cm], cos2 of the angle to the field (read by the ellipsoid alone, else
 * NULL) -> the fraction of the charge that survives recombination. */
HEPOPS_API hepops_status hepops_recombine(hepops_context* context, const hepops_parameters* parameters, int64_t model,
                                          int64_t count, const double* dedx, const double* cos2, double* fraction);
/* distance from the anode [cm] -> what survives [1], when it arrives [us], spread across and along the field [cm]. Any
 * of the results may be NULL. */
HEPOPS_API hepops_status hepops_drift(hepops_context* context, const hepops_parameters* parameters, int64_t count,
                                      const double* distance, double* survival, double* time, double* sigma_t,
                                      double* sigma_l);

/* ---- sparse convolution ----------------------------------------------------------------------------------------- */

/* Which rows meet under which kernel offset: y[written] += x[read] W[offset]. */
typedef struct hepops_map hepops_map;

/* From `count` triples (row read, row written, offset), in any order; a pair of rows at most once under an offset. */
HEPOPS_API hepops_status hepops_map_create(hepops_context* context, int64_t count, const int64_t* read,
                                           const int64_t* written, const int64_t* offset, int64_t rows_read,
                                           int64_t rows_written, int64_t offsets, hepops_map** map);
HEPOPS_API void hepops_map_destroy(hepops_map* map);

/* x (rows_read, in), weight (offsets, in, out), bias (out) or NULL -> y (rows_written, out), float32 */
HEPOPS_API hepops_status hepops_convolve(hepops_context* context, const hepops_map* map, int64_t in, int64_t out,
                                         const float* x, const float* weight, const float* bias, float* y);
/* grad_y (rows_written, out) -> the gradients of x, weight and bias, shapes as above; each may be NULL. grad_weight
 * must be ordinary memory, not a private mapping of a file. */
HEPOPS_API hepops_status hepops_convolve_backward(hepops_context* context, const hepops_map* map, int64_t in,
                                                  int64_t out, const float* grad_y, const float* x, const float* weight,
                                                  float* grad_x, float* grad_weight, float* grad_bias);

/* ---- rational-quadratic splines --------------------------------------------------------------------------------- */

typedef enum hepops_tails { HEPOPS_LINEAR = 0, HEPOPS_CIRCULAR = 1, HEPOPS_NO_TAILS = 2 } hepops_tails;
typedef enum hepops_convention { HEPOPS_NFLOWS = 0, HEPOPS_ZUKO = 1 } hepops_convention;

typedef struct hepops_spline {
  int64_t bins;
  int64_t tails;      /* hepops_tails: K - 1, K or K + 1 slopes of an element */
  int64_t convention; /* hepops_convention: what the numbers of a network become */
  double low, high;   /* the domain, mapped onto itself: finite, low below high in the numbers of x */
  int64_t inverse;    /* 0: y = f(x), 1: the other way */
} hepops_spline;

/* Element by element: a NaN among an element's numbers makes NaN of it alone.
 * x (count), widths and heights (count, bins), slopes (count, slopes) -> value (count), logdet (count) */
HEPOPS_API hepops_status hepops_spline_f32(hepops_context* context, const hepops_spline* spline, int64_t count,
                                           const float* x, const float* widths, const float* heights,
                                           const float* slopes, float* value, float* logdet);
HEPOPS_API hepops_status hepops_spline_f64(hepops_context* context, const hepops_spline* spline, int64_t count,
                                           const double* x, const double* widths, const double* heights,
                                           const double* slopes, double* value, double* logdet);
/* The gradients of x, widths, heights and slopes from those of value and logdet. */
HEPOPS_API hepops_status hepops_spline_backward_f32(hepops_context* context, const hepops_spline* spline, int64_t count,
                                                    const float* grad_value, const float* grad_logdet, const float* x,
                                                    const float* widths, const float* heights, const float* slopes,
                                                    float* grad_x, float* grad_widths, float* grad_heights,
                                                    float* grad_slopes);
HEPOPS_API hepops_status hepops_spline_backward_f64(hepops_context* context, const hepops_spline* spline, int64_t count,
                                                    const double* grad_value, const double* grad_logdet,
                                                    const double* x, const double* widths, const double* heights,
                                                    const double* slopes, double* grad_x, double* grad_widths,
                                                    double* grad_heights, double* grad_slopes);

/* ---- SU(3) ------------------------------------------------------------------------------------------------------ */

/* Matrices are 3 x 3, row by row, real and imaginary parts in turn: 18 numbers. exp(TA(X)), TA the traceless
 * anti-hermitian part, to about 1e-15 |TA(X)|. Results are those of hepops.lattice.group, matrix by matrix, and numbers
 * are not looked at: a matrix with a NaN or an infinity, or so large that the squares of its numbers overflow, gives
 * NaN of its own, and the status is HEPOPS_OK. The others are what they would be without it. */
HEPOPS_API hepops_status hepops_su3_exp(hepops_context* context, int64_t count, const double* X, double* U);
HEPOPS_API hepops_status hepops_su3_exp_backward(hepops_context* context, int64_t count, const double* grad_U,
                                                 const double* X, double* grad_X);
/* The nearest unitary matrix, the phase of its determinant taken away. NaN where M is singular (zero, say), or beyond
 * 1e+-100 or so, where its determinant's square is no number of double precision. */
HEPOPS_API hepops_status hepops_su3_project(hepops_context* context, int64_t count, const double* M, double* U);
HEPOPS_API hepops_status hepops_su3_project_backward(hepops_context* context, int64_t count, const double* grad_U,
                                                     const double* M, double* grad_M);
/* links (D, sites, 3, 3), sites as the extents (D) number them, the last one fastest -> A (D, sites, 3, 3), the sum of
 * the products of links around each, c0 times the plaquettes' and c1 times the rectangles': Re tr U A are those terms
 * of the action's bracket that hold U. D is 1 to 4; c0 and c1 are finite; a NaN among the links makes NaN of the sums
 * that hold it. */
HEPOPS_API hepops_status hepops_su3_staples(hepops_context* context, int64_t dimensions, const int64_t* extents,
                                            double c0, double c1, const double* links, double* A);

#ifdef __cplusplus
}
#endif

#endif
