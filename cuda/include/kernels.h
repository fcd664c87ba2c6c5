// The table of kernels: one per instruction set, filled by cpu/table.cpp, read by cpu/library.cpp.
// A new operator adds one line to GNNLAB's C header, one entry here and one kernel file.
#pragma once

#include <cstdint>

#include "gnnlab.h"

namespace gnnlab {

// Records the sentence for gnnlab_last_error() and returns `status`. Defined in cpu/library.cpp,
// outside the instruction-set namespaces.
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

inline constexpr int64_t kSerialWork = 32768;  // below this many multiply-adds one thread is faster

struct PlanArgs {
  const void* key;
  const void* other;
  int index_bytes;
  int64_t num_edges, num_keys, num_other;
  int64_t* indptr;
  void* col;
  void* perm;
  int out_bytes, threads;
};

struct SpmmArgs {
  const int64_t* indptr;
  const void* col;
  const void* perm;
  int index_bytes;
  int64_t num_dst, num_edges;
  const void* x;
  int64_t ldx, heads, width;
  const void* weight;
  int64_t weight_heads;
  int mean, dtype;
  void* out;
  int threads;
};

struct SegmentArgs {
  const void* src;
  int64_t lds;
  const int64_t* indptr;
  int64_t num_segments, num_rows, width;
  int mean, dtype;
  void* out;
  int threads;
};

struct ScatterArgs {
  const void* src;
  int64_t lds;
  const void* index;
  int index_bytes;
  int64_t num_edges, num_dst, width;
  int mean, dtype;
  void* out;
  int strategy, threads;
};

struct GatherArgs {
  const void* x;
  int64_t stride_bytes;
  const void* index;
  int index_bytes;
  int64_t num_edges, num_src, row_bytes;
  void* out;
  int threads;
};

struct Kernels {
  const char* isa;
  int (*check_index)(const void* index, int bytes, int64_t count, int64_t bound, int* sorted);
  int (*plan_build)(const PlanArgs&);
  int (*spmm)(const SpmmArgs&);
  int (*segment)(const SegmentArgs&);
  int (*scatter)(const ScatterArgs&);
  int (*gather)(const GatherArgs&);
};

}  // namespace gnnlab
