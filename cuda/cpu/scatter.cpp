// Scatter: out[index[e]] is reduced with src[e] when the index has no plan; no atomics.
//
// Algorithm, chosen by the sizes alone (never by the number of threads, which must not change bits):
//   scan (sum and mean): every thread reads the whole index and adds the rows that fall in its own
//     range of destinations. Best while the output stays in the second-level cache.
//   sort: counting sort of the index, then `reduce` through perm. Best otherwise: a destination is
//     written once instead of once per edge.
// Reads 8 E + s E F bytes (sort: 8 E more and 8 E of perm), writes s M F (scan: rewrites in cache).
// Range check: scan counts the edges that found an owner; when one did not, its place is looked up.
// Order of sums: scan adds in the caller's order, sort as include/row_reduce.h.
// Measured by: gnnlab.bench.ops, row "scatter sum".
#include "counting_sort.h"
#include "families.h"
#include "items.h"

namespace gnnlab::GNNLAB_NS {
namespace {

struct ScatterArgs {
  const void* src;
  int64_t lds;
  const void* index;
  int64_t num_edges, num_dst, width;
  int reduce, dtype;
  void* out;
  int64_t* arg;
  int threads;
};

constexpr int64_t kScanBytes = 1 << 20;  // largest output that is scanned rather than sorted

template <typename T, int F>
inline void add_row(T* __restrict out, const T* __restrict src, int64_t width) {
  const int64_t items = F > 0 ? F : width;
  for (int64_t f = 0; f < items; ++f) out[f] += src[f];
}

// Adds the rows owned by destinations [low, high); returns how many edges that were.
template <typename T, typename K, int F>
int64_t scan_range(const ScatterArgs& a, int64_t low, int64_t high, int64_t* counts) {
  const T* src = static_cast<const T*>(a.src);
  const K* index = static_cast<const K*>(a.index);
  T* out = static_cast<T*>(a.out);
  const uint64_t range = static_cast<uint64_t>(high - low);
  for (int64_t f = low * a.width; f < high * a.width; ++f) out[f] = T(0);
  int64_t owned = 0;
  for (int64_t e = 0; e < a.num_edges; ++e) {
    const int64_t i = static_cast<int64_t>(index[e]);
    if (static_cast<uint64_t>(i) - static_cast<uint64_t>(low) >= range) continue;
    ++owned;
    if (counts) ++counts[i];
    add_row<T, F>(out + i * a.width, src + e * a.lds, a.width);
  }
  if (counts)
    for (int64_t i = low; i < high; ++i)
      if (counts[i] > 1)
        for (int64_t f = 0; f < a.width; ++f) out[i * a.width + f] /= static_cast<T>(counts[i]);
  return owned;
}

template <typename T, typename K>
int scan(const ScatterArgs& a) {
  const bool mean = a.reduce == GNNLAB_MEAN;
  const int team = useful_threads(a.threads, a.num_edges * max2<int64_t>(a.width, 1));
  Scratch<int64_t> counts(mean ? a.num_dst : 0);
  if (!counts.data) return no_memory();
  if (mean)
    for (int64_t i = 0; i < a.num_dst; ++i) counts.data[i] = 0;
  int64_t* const count = mean ? counts.data : nullptr;
  int64_t owned = 0;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1) reduction(+ : owned)
  for (int t = 0; t < team; ++t) {
    const int64_t low = a.num_dst * t / team, high = a.num_dst * (t + 1) / team;
    owned += a.width == 1    ? scan_range<T, K, 1>(a, low, high, count)
             : a.width == 16 ? scan_range<T, K, 16>(a, low, high, count)
             : a.width == 64 ? scan_range<T, K, 64>(a, low, high, count)
                             : scan_range<T, K, 0>(a, low, high, count);
  }
  if (owned != a.num_edges) return report_bad_index(static_cast<const K*>(a.index), a.num_edges, a.num_dst);
  return GNNLAB_OK;
}

template <typename K, typename I>
int sort(const ScatterArgs& a) {
  Scratch<int64_t> indptr(a.num_dst + 1);
  Scratch<I> perm(a.num_edges);
  const int64_t items = a.num_dst * a.width;
  Scratch<I> places(a.arg ? items : 0);
  if (!indptr.data || !perm.data || !places.data) return no_memory();
  int status = counting_sort<K, I>(static_cast<const K*>(a.index), nullptr, a.num_edges, a.num_dst, 0,
                                   indptr.data, nullptr, perm.data, a.threads);
  if (status != GNNLAB_OK) return status;
  const gnnlab_rows rows{indptr.data, perm.data, nullptr, a.num_dst, a.num_edges, sizeof(I), 0};
  status = reduce(&rows, a.src, a.lds, 1, a.width, nullptr, 0, a.reduce, a.dtype, a.out,
                  a.arg ? places.data : nullptr, a.threads);
  if (status != GNNLAB_OK || !a.arg) return status;
  const int team = useful_threads(a.threads, items);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
  for (int64_t i = 0; i < items; ++i) {
    const int64_t place = places.data[i];
    a.arg[i] = place == a.num_edges ? place : static_cast<int64_t>(perm.data[place]);
  }
  return GNNLAB_OK;
}

template <typename K>
int run(const ScatterArgs& a, int strategy) {
  const bool sums = a.reduce <= GNNLAB_MEAN && a.dtype != GNNLAB_BF16 && a.dtype != GNNLAB_F16;
  const int64_t item_bytes = a.dtype == GNNLAB_F64 || a.dtype == GNNLAB_I64 ? 8 : 4;
  const bool small_out = a.num_dst * a.width * item_bytes <= kScanBytes;
  if (sums && (strategy == GNNLAB_SCATTER_SCAN || (strategy == GNNLAB_SCATTER_AUTO && small_out))) {
    switch (a.dtype) {
      case GNNLAB_F32: return scan<float, K>(a);
      case GNNLAB_F64: return scan<double, K>(a);
      case GNNLAB_I32: return scan<uint32_t, K>(a);
      default: return scan<uint64_t, K>(a);
    }
  }
  const bool small = max2(a.num_edges, a.num_dst) < (int64_t{1} << 31);
  return small ? sort<K, int32_t>(a) : sort<K, int64_t>(a);
}

}  // namespace

int scatter(const void* src, int64_t lds, const void* index, int index_bytes, int64_t num_edges,
            int64_t num_dst, int64_t width, int reduce, int dtype, void* out, int64_t* arg, int strategy,
            int threads) {
  const ScatterArgs a{src, lds, index, num_edges, num_dst, width, reduce, dtype, out, arg, threads};
  return index_bytes == 4 ? run<int32_t>(a, strategy) : run<int64_t>(a, strategy);
}

}  // namespace gnnlab::GNNLAB_NS
