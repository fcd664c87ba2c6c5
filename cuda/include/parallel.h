// Threads, scratch memory and the fair cut of rows: what every kernel file shares.
//
// Everything here lives in the namespace of one instruction set (GNNLAB_NS). That is not decoration:
// an inline function shared by files compiled for different processors would be merged by the linker
// into one copy, which may then use instructions that this processor lacks. For the same reason
// kernel files use no containers or algorithms of the standard library.
#pragma once

#include <cstdint>
#include <cstdlib>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.h"

namespace gnnlab::GNNLAB_NS {

template <typename T>
constexpr T min2(T a, T b) { return a < b ? a : b; }
template <typename T>
constexpr T max2(T a, T b) { return a < b ? b : a; }

inline int team_size() {
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}

inline int team_rank() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// How many threads a job of `work` multiply-adds deserves.
inline int useful_threads(int wanted, int64_t work) {
  if (wanted <= 1 || work < kSerialWork || !may_use_threads()) return 1;
  return static_cast<int>(min2<int64_t>(wanted, 1 + work / kSerialWork));
}

// Uninitialised scratch memory that frees itself; data is null when memory ran out.
template <typename T>
struct Scratch {
  T* data;
  explicit Scratch(int64_t count)
      : data(static_cast<T*>(std::malloc(static_cast<size_t>(max2<int64_t>(count, 1)) * sizeof(T)))) {}
  ~Scratch() { std::free(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

inline int no_memory() { return fail(GNNLAB_NO_MEMORY, "out of memory in a gnnlab kernel"); }

inline int bad_index(int64_t value, int64_t position, int64_t bound) {
  return fail(GNNLAB_BAD_INDEX, "index %lld at position %lld is out of range [0, %lld)",
              static_cast<long long>(value), static_cast<long long>(position),
              static_cast<long long>(bound));
}

// Finds the first index outside [0, bound) and reports it; for use after a check has failed.
template <typename K>
inline int report_bad_index(const K* index, int64_t count, int64_t bound) {
  for (int64_t e = 0; e < count; ++e)
    if (static_cast<uint64_t>(index[e]) >= static_cast<uint64_t>(bound))
      return bad_index(index[e], e, bound);
  return fail(GNNLAB_INTERNAL, "an index changed while a gnnlab kernel was reading it");
}

// Rows longer than this are summed in blocks of this many edges, and the blocks' sums are added in
// order. The tree of additions of a row thus depends on its length alone, however threads share it.
inline constexpr int64_t kBlock = 4096;

// Where one thread's share begins: whole rows, or a block inside a long row.
struct Cut {
  int64_t row, block;
};

// The point where a walk over rows and edges (one step per row, one per edge) has made `step` steps.
inline Cut cut_at(const int64_t* indptr, int64_t rows, int64_t step) {
  int64_t low = 0, high = rows;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (middle + indptr[middle] <= step) low = middle; else high = middle - 1;
  }
  if (low >= rows) return {rows, 0};
  const int64_t length = indptr[low + 1] - indptr[low];
  if (length <= kBlock) return {low, 0};
  const int64_t block = (step - low - indptr[low]) / kBlock;
  return block * kBlock >= length ? Cut{low + 1, 0} : Cut{low, block};
}

}  // namespace gnnlab::GNNLAB_NS
