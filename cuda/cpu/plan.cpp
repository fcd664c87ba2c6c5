// Plan: checks indices and sorts edges by destination.
//
// Algorithm: stable counting sort. Each thread counts the keys of its part of the edges, the counts
//   are scanned over (key, thread), and each thread writes its edges to their places. Stable: edges
//   of a row keep the caller's order, whatever the number of threads.
// Reads 2 * E * s + E * s bytes (key twice, other once; s = 4 or 8), writes 8 * (M + 1) + 2 * E * r
//   (r = 4 while all sizes are below 2^31). E log E never appears: 2.5 to 12 times faster than sorts.
// The range checks ride along: an index is compared where it is read anyway, one that is out of
//   range is never used as an address, and the first one is looked up only after a failure.
// Sums: none. Measured by: gnnlab.bench.ops, row "plan build".
#include "counting_sort.h"
#include "families.h"
#include "pages.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename K>
int check(const K* index, int64_t count, int64_t bound, int* sorted) {
  uint64_t largest = 0;  // a negative index becomes a huge unsigned one
  int64_t drops = 0;
  constexpr int64_t kStep = 4096;
  for (int64_t at = 0; at < count; at += kStep) {
    const int64_t end = min2(count, at + kStep);
    for (int64_t e = at; e < end; ++e) largest = max2(largest, static_cast<uint64_t>(static_cast<int64_t>(index[e])));
    if (drops == 0)
      for (int64_t e = max2<int64_t>(at, 1); e < end; ++e) drops += index[e] < index[e - 1];
  }
  *sorted = drops == 0;
  if (count > 0 && largest >= static_cast<uint64_t>(bound)) return report_bad_index(index, count, bound);
  return GNNLAB_OK;
}

}  // namespace

int check_index(const void* index, int bytes, int64_t count, int64_t bound, int* sorted) {
  return bytes == 4 ? check(static_cast<const int32_t*>(index), count, bound, sorted)
                    : check(static_cast<const int64_t*>(index), count, bound, sorted);
}

int check_indptr(const int64_t* indptr, int64_t num_rows, int64_t num_edges) {
  int64_t drops = 0;
  for (int64_t i = 0; i < num_rows; ++i) drops += indptr[i + 1] < indptr[i];
  if (indptr[0] == 0 && indptr[num_rows] == num_edges && drops == 0) return GNNLAB_OK;
  return fail(GNNLAB_BAD_ARGUMENT,
              "indptr must start at 0, never decrease and end at the number of rows (%lld); "
              "it starts at %lld, decreases %lld times and ends at %lld",
              static_cast<long long>(num_edges), static_cast<long long>(indptr[0]),
              static_cast<long long>(drops), static_cast<long long>(indptr[num_rows]));
}

int plan_build(const void* key, const void* other, int index_bytes, int64_t num_edges, int64_t num_keys,
               int64_t num_other, int64_t* indptr, void* col, void* perm, int out_bytes, int threads) {
  // Written, and later read, here and there: few pages, few misses of their addresses.
  advise_huge_pages(indptr, (num_keys + 1) * static_cast<int64_t>(sizeof(int64_t)));
  if (col) advise_huge_pages(col, num_edges * out_bytes);
  if (perm) advise_huge_pages(perm, num_edges * out_bytes);
  const auto build = [&](auto k, auto i) {
    using K = decltype(k);
    using I = decltype(i);
    return counting_sort(static_cast<const K*>(key), static_cast<const K*>(other), num_edges, num_keys,
                         num_other, indptr, static_cast<I*>(col), static_cast<I*>(perm), threads);
  };
  if (out_bytes == 4) return index_bytes == 4 ? build(int32_t{}, int32_t{}) : build(int64_t{}, int32_t{});
  return index_bytes == 4 ? build(int32_t{}, int64_t{}) : build(int64_t{}, int64_t{});
}

}  // namespace gnnlab::GNNLAB_NS
