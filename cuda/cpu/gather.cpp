// Gather: out[e] = x[index[e]], a copy of rows of any dtype.
//
// Algorithm: edges are dealt out evenly; rows of 4, 8, 64, 128 and 256 bytes are copied by loops of
//   fixed length, others by memcpy. Each index is compared where it is read; the first that is out
//   of range (the smallest place over all threads) is reported, and is never used as an address.
// Reads 4 or 8 E bytes of index and E rows, writes E rows. A fresh output is bound by page faults,
//   so the kernel is asked for huge pages on outputs of 4 MB and more.
// Sums: none. Measured by: gnnlab.bench.ops, row "gather".
#include "families.h"
#include "parallel.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace gnnlab::GNNLAB_NS {
namespace {

struct GatherArgs {
  const void* x;
  int64_t stride_bytes;
  const void* index;
  int64_t num_edges, num_src, row_bytes;
  void* out;
  int threads;
};

void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < (int64_t{4} << 20)) return;
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // only a hint
#endif
}

// Copies rows [begin, end); returns the place of the first bad index, or `none`.
template <typename K, int BYTES>
int64_t copy_rows(const GatherArgs& a, int64_t begin, int64_t end, int64_t none) {
  const K* index = static_cast<const K*>(a.index);
  const char* x = static_cast<const char*>(a.x);
  char* out = static_cast<char*>(a.out);
  const size_t bytes = BYTES > 0 ? BYTES : static_cast<size_t>(a.row_bytes);
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = static_cast<int64_t>(index[e]);
    if (__builtin_expect(static_cast<uint64_t>(i) >= static_cast<uint64_t>(a.num_src), 0)) return e;
    __builtin_memcpy(out + e * static_cast<int64_t>(bytes), x + i * a.stride_bytes, bytes);
  }
  return none;
}

template <typename K>
int run(const GatherArgs& a) {
  const int team = useful_threads(a.threads, a.num_edges * max2<int64_t>(a.row_bytes / 4, 1));
  advise_huge_pages(a.out, a.num_edges * a.row_bytes);
  const int64_t none = a.num_edges;
  int64_t bad = none;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1) reduction(min : bad)
  for (int t = 0; t < team; ++t) {
    const int64_t begin = a.num_edges / team * t + a.num_edges % team * t / team;
    const int64_t end = a.num_edges / team * (t + 1) + a.num_edges % team * (t + 1) / team;
    int64_t found = none;
    switch (a.row_bytes) {
      case 4: found = copy_rows<K, 4>(a, begin, end, none); break;
      case 8: found = copy_rows<K, 8>(a, begin, end, none); break;
      case 64: found = copy_rows<K, 64>(a, begin, end, none); break;
      case 128: found = copy_rows<K, 128>(a, begin, end, none); break;
      case 256: found = copy_rows<K, 256>(a, begin, end, none); break;
      default: found = copy_rows<K, 0>(a, begin, end, none);
    }
    bad = min2(bad, found);
  }
  if (bad == none) return GNNLAB_OK;
  return bad_index(static_cast<int64_t>(static_cast<const K*>(a.index)[bad]), bad, a.num_src);
}

}  // namespace

int gather(const void* x, int64_t stride_bytes, const void* index, int index_bytes, int64_t num_edges,
           int64_t num_src, int64_t row_bytes, void* out, int threads) {
  const GatherArgs args{x, stride_bytes, index, num_edges, num_src, row_bytes, out, threads};
  return index_bytes == 4 ? run<int32_t>(args) : run<int64_t>(args);
}

}  // namespace gnnlab::GNNLAB_NS
