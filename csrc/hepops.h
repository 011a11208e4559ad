#pragma once
// hepops for C++ programs, without torch: simulate segments to hits, sparse convolutions of given maps, splines, SU(3).
//
//   hepops::Config config = hepops::Config::module0();
//   const hepops::Simulator simulator(config);          // immutable: any number of threads may call it
//   const hepops::Hits hits = simulator(segments, 7);   // spans in, columns out
//
// Everything is a thin cover of the C functions (c_api.h has their contracts): spans in the place of pointers, and
// exceptions, whose message names the argument and the value, in the place of a status: std::invalid_argument,
// std::bad_alloc, std::runtime_error. Link hepops::core.
#include "api/execution.h"
#include "api/flows.h"
#include "api/lartpc.h"
#include "api/lattice.h"
#include "api/sparse.h"
