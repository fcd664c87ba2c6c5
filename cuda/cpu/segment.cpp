// Segment: sums (or averages) of consecutive rows, out[i] = sum of src[indptr[i] .. indptr[i + 1]].
//
// Algorithm: row sums with tiles in registers (include/row_sum.h) on rows that lie side by side, so
//   the processor's own prefetcher streams them. indptr is checked first, so that a wrong one is an
//   error and never a wild read.
// Reads 8 (M + 1) + s E F bytes, writes s M F: the speed of reading memory.
// Order of sums: include/row_sum.h, the same as spmm.
// Measured by: gnnlab.bench.ops, row "segment sum".
#include "families.h"
#include "row_sum.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename T>
int run(const SegmentArgs& a) {
  const RowSum<T> job{a.indptr, a.num_segments, a.num_rows, static_cast<const T*>(a.src), a.lds, 1,
                      a.width, 0, a.mean != 0, static_cast<T*>(a.out), a.threads};
  return sum_all(job, InOrder{}, NoWeight{});
}

}  // namespace

int segment(const SegmentArgs& a) {
  int64_t drops = 0;
  for (int64_t i = 0; i < a.num_segments; ++i) drops += a.indptr[i + 1] < a.indptr[i];
  if (a.indptr[0] != 0 || a.indptr[a.num_segments] != a.num_rows || drops)
    return fail(GNNLAB_BAD_ARGUMENT,
                "indptr must start at 0, never decrease and end at the number of rows (%lld); "
                "it starts at %lld, decreases %lld times and ends at %lld",
                static_cast<long long>(a.num_rows), static_cast<long long>(a.indptr[0]),
                static_cast<long long>(drops), static_cast<long long>(a.indptr[a.num_segments]));
  return a.dtype == GNNLAB_F32 ? run<float>(a) : run<double>(a);
}

}  // namespace gnnlab::GNNLAB_NS
