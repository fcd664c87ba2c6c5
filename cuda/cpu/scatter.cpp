// Scatter: out[index[e]] is reduced with src[e] when the index has no plan; no atomics.
//
// Algorithm, chosen by the sizes alone (never by the number of threads, which must not change bits):
//   scan (sum, mean, max and min without arg): every thread reads the whole index and takes in the
//     rows that fall in its own range of destinations, which are asked for 12 edges ahead. src is
//     read once, in order. Best while the output is not much larger than the last-level cache.
//   sort: counting sort of the index, then `reduce` through perm. Best otherwise: a destination is
//     written once instead of once per edge.
// Reads 8 E + s E F bytes (sort: 8 E more and 8 E of perm), writes s M F (scan: rewrites in cache).
//   Measured at F = 64 against sort: 1.8 times faster on a mesh, 2.2 times on the bipartite graph.
// Range check: scan counts the edges that found an owner; when one did not, its place is looked up.
// Order of sums: scan adds in the caller's order, sort as include/row_reduce.h.
// Measured by: gnnlab.bench.ops, rows "scatter sum", "scatter mean", "scatter max".
#include "counting_sort.h"
#include "families.h"
#include "pages.h"
#include "tile.h"

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

constexpr int64_t kScanBytes = int64_t{64} << 20;  // largest output that is scanned, not sorted
constexpr int64_t kAhead = 12;                     // edges; measured: 6 is slower, 24 no faster

enum Scan { kAdd, kLargest, kSmallest };

// out = out + src, or the larger or smaller of the two; a NaN stays.
template <Scan SCAN, int N, typename T>
GNNLAB_INLINE void take_in(T* out, const T* src) {
  using V = Vec<T, N>;
  V y, x;
  __builtin_memcpy(&y, out, sizeof y);
  __builtin_memcpy(&x, src, sizeof x);
  if constexpr (SCAN == kAdd) y += x;
  if constexpr (SCAN == kLargest) y = x > y ? x : y;
  if constexpr (SCAN == kSmallest) y = x < y ? x : y;
  if constexpr (SCAN != kAdd && std::is_floating_point_v<T>) y = x == x ? y : x;
  if constexpr (N == 1 && SCAN != kAdd) always_written(y);
  __builtin_memcpy(out, &y, sizeof y);
}

// The same for a row of W numbers; W = 0: of `width`.
template <Scan SCAN, int W, typename T>
GNNLAB_INLINE void take_in_row(T* out, const T* src, int64_t width) {
  constexpr int N = kVectorBytes / static_cast<int>(sizeof(T));
  if constexpr (W == 1) {
    take_in<SCAN, 1>(out, src);
  } else if constexpr (W > 0) {
    static_assert(W % N == 0, "whole vectors");
#pragma GCC unroll 16
    for (int f = 0; f < W; f += N) take_in<SCAN, N>(out + f, src + f);
  } else {
    int64_t f = 0;
    for (; f + N <= width; f += N) take_in<SCAN, N>(out + f, src + f);
    for (; f < width; ++f) take_in<SCAN, 1>(out + f, src + f);
  }
}

// Takes in the rows of destinations [low, high); returns how many that were. `counts`, where not
// null, counts them by destination.
template <Scan SCAN, int W, typename T, typename K>
int64_t scan_range(const ScatterArgs& a, int64_t low, int64_t high, uint32_t* counts) {
  const T* src = static_cast<const T*>(a.src);
  const K* index = static_cast<const K*>(a.index);
  T* out = static_cast<T*>(a.out);
  const int64_t width = W > 0 ? W : a.width, bytes = width * static_cast<int64_t>(sizeof(T));
  const uint64_t range = static_cast<uint64_t>(high - low);
  using Limits = std::numeric_limits<T>;
  constexpr T kTop = Limits::has_infinity ? Limits::infinity() : Limits::max();
  constexpr T kBottom = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  constexpr T kStart = SCAN == kAdd ? T(0) : SCAN == kLargest ? kBottom : kTop;
  for (int64_t f = low * width; f < high * width; ++f) out[f] = kStart;
  if (counts)
    for (int64_t i = low; i < high; ++i) counts[i] = 0;
  int64_t owned = 0;
  for (int64_t e = 0; e < a.num_edges; ++e) {
    const uint64_t later = static_cast<uint64_t>(index[min2(e + kAhead, a.num_edges - 1)]) - static_cast<uint64_t>(low);
    if (later < range) {
      const char* row = reinterpret_cast<const char*>(out + (static_cast<int64_t>(later) + low) * width);
      for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b, 1);
    }
    const int64_t i = static_cast<int64_t>(index[e]);
    if (static_cast<uint64_t>(i) - static_cast<uint64_t>(low) >= range) continue;
    ++owned;
    if (counts) ++counts[i];
    take_in_row<SCAN, W>(out + i * width, src + e * a.lds, width);
  }
  return owned;
}

// Where the range of each of `team` threads begins, so that all own about as many edges.
template <typename K>
void cut_ranges(const K* index, int64_t num_edges, int64_t num_dst, int team, int64_t* cuts) {
  constexpr int64_t kBuckets = 1024, kSamples = 1 << 16;
  int64_t found[kBuckets] = {}, total = 0;
  const int64_t step = num_edges / kSamples + 1, wide = num_dst / kBuckets + 1;
  for (int64_t e = 0; e < num_edges; e += step) {
    const uint64_t i = static_cast<uint64_t>(index[e]);
    if (i < static_cast<uint64_t>(num_dst)) ++found[static_cast<int64_t>(i) / wide], ++total;
  }
  int64_t before = 0;
  int t = 0;
  for (int64_t b = 0; b < kBuckets && t < team; before += found[b++])
    while (t < team && before >= total * t / team) cuts[t++] = min2(b * wide, num_dst);
  while (t <= team) cuts[t++] = num_dst;
  cuts[0] = 0;
}

template <Scan SCAN, typename T, typename K>
int scan(const ScatterArgs& a) {
  constexpr int kMost = 256;  // threads
  const int team = min2(useful_threads(a.threads, a.num_edges * max2<int64_t>(a.width, 1)), kMost);
  const bool counted = SCAN != kAdd || a.reduce == GNNLAB_MEAN;
  const K* index = static_cast<const K*>(a.index);
  Scratch<uint32_t> counts(counted ? a.num_dst : 0);
  if (!counts.data) return no_memory();
  uint32_t* const count = counted ? counts.data : nullptr;
  advise_huge_pages(a.out, a.num_dst * a.width * static_cast<int64_t>(sizeof(T)));
  int64_t cuts[kMost + 1] = {0, a.num_dst};
  if (team > 1) cut_ranges(index, a.num_edges, a.num_dst, team, cuts);
  int64_t owned = 0;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1) reduction(+ : owned)
  for (int t = 0; t < team; ++t) {
    const int64_t low = cuts[t], high = cuts[t + 1];
    constexpr int kUnit = 64 / static_cast<int>(sizeof(T));
    owned += a.width == 1           ? scan_range<SCAN, 1, T, K>(a, low, high, count)
             : a.width == kUnit     ? scan_range<SCAN, kUnit, T, K>(a, low, high, count)
             : a.width == 4 * kUnit ? scan_range<SCAN, 4 * kUnit, T, K>(a, low, high, count)
                                    : scan_range<SCAN, 0, T, K>(a, low, high, count);
    T* const out = static_cast<T*>(a.out);
    if (!count) continue;
    for (int64_t i = low; i < high; ++i) {
      if (SCAN == kAdd && count[i] > 1)
        for (int64_t f = 0; f < a.width; ++f) out[i * a.width + f] /= static_cast<T>(count[i]);
      if (SCAN != kAdd && count[i] == 0)
        for (int64_t f = 0; f < a.width; ++f) out[i * a.width + f] = T(0);
    }
  }
  if (owned != a.num_edges) return report_bad_index(index, a.num_edges, a.num_dst);
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

// S for ordering, U for sums: they differ for integers, whose sums wrap around.
template <typename S, typename U, typename K>
int scan_as(const ScatterArgs& a) {
  if (a.reduce == GNNLAB_MAX) return scan<kLargest, S, K>(a);
  if (a.reduce == GNNLAB_MIN) return scan<kSmallest, S, K>(a);
  return scan<kAdd, U, K>(a);
}

template <typename K>
int run(const ScatterArgs& a, int strategy) {
  const bool able = a.reduce != GNNLAB_MUL && !a.arg && a.dtype != GNNLAB_BF16 && a.dtype != GNNLAB_F16 &&
                    a.num_edges < (int64_t{1} << 32);
  const int64_t item_bytes = a.dtype == GNNLAB_F64 || a.dtype == GNNLAB_I64 ? 8 : 4;
  const bool small_out = a.num_dst * a.width * item_bytes <= kScanBytes;
  if (able && (strategy == GNNLAB_SCATTER_SCAN || (strategy == GNNLAB_SCATTER_AUTO && small_out))) {
    switch (a.dtype) {
      case GNNLAB_F32: return scan_as<float, float, K>(a);
      case GNNLAB_F64: return scan_as<double, double, K>(a);
      case GNNLAB_I32: return scan_as<int32_t, uint32_t, K>(a);
      default: return scan_as<int64_t, uint64_t, K>(a);
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
