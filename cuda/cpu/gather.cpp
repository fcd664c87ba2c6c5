// Gather: out[e] = x[index[e]], a copy of rows of any dtype.
//
// Algorithm: edges are dealt out evenly; rows of 4, 8, 64, 128, 256 and 512 bytes are copied by code
//   of fixed length, others by memcpy; rows of x are asked for 16 edges ahead. Each index is compared
//   where it is read; the first that is out of range (the smallest place over all threads) is
//   reported, and is never used as an address.
// Reads 4 or 8 E bytes of index and E rows, writes E rows. Outputs of 16 MB and more are written past
//   the caches. A fresh output is bound by page faults, so huge pages are asked for from 4 MB on.
// Sums: none. Measured by: gnnlab.bench.ops, row "gather".
#include "families.h"
#include "pages.h"
#include "parallel.h"

#if defined(__SSE2__)
#include <immintrin.h>
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

constexpr int64_t kStreamBytes = int64_t{16} << 20;  // outputs from here on would flush the caches

// Copies one row of BYTES (a multiple of 64) past the caches: `to` is aligned to 64 bytes.
template <int BYTES>
inline __attribute__((always_inline)) void stream_row([[maybe_unused]] char* to, [[maybe_unused]] const char* from) {
#if defined(__AVX512F__)
#pragma GCC unroll 16
  for (int b = 0; b < BYTES; b += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + b), _mm512_loadu_si512(from + b));
#elif defined(__AVX__)
#pragma GCC unroll 32
  for (int b = 0; b < BYTES; b += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + b),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + b)));
#elif defined(__SSE2__)
#pragma GCC unroll 64
  for (int b = 0; b < BYTES; b += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + b),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + b)));
#else
  __builtin_memcpy(to, from, BYTES);
#endif
}

// Copies rows [begin, end); returns the place of the first bad index, or `none`. STREAM: rows are a
// multiple of 64 bytes, out is aligned, and nobody will read out from the cache.
template <typename K, int BYTES, bool STREAM>
int64_t copy_rows(const GatherArgs& a, int64_t begin, int64_t end, int64_t none) {
  constexpr int64_t kAhead = 16;
  const K* index = static_cast<const K*>(a.index);
  const char* x = static_cast<const char*>(a.x);
  char* out = static_cast<char*>(a.out);
  const int64_t bytes = BYTES > 0 ? BYTES : a.row_bytes;
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = static_cast<int64_t>(index[e]);
    if (__builtin_expect(static_cast<uint64_t>(i) >= static_cast<uint64_t>(a.num_src), 0)) return e;
    if constexpr (BYTES >= 64) {
      const uint64_t later = static_cast<uint64_t>(index[min2(e + kAhead, end - 1)]);
      if (later < static_cast<uint64_t>(a.num_src))
#pragma GCC unroll 16
        for (int b = 0; b < BYTES; b += 64) __builtin_prefetch(x + static_cast<int64_t>(later) * a.stride_bytes + b);
    }
    char* const to = out + e * bytes;
    const char* const from = x + i * a.stride_bytes;
    if constexpr (!STREAM) {
      __builtin_memcpy(to, from, static_cast<size_t>(bytes));
    } else if constexpr (BYTES > 0) {
      stream_row<BYTES>(to, from);
    } else {
      for (int64_t b = 0; b < bytes; b += 64) stream_row<64>(to + b, from + b);
    }
  }
#if defined(__SSE2__)
  if constexpr (STREAM) _mm_sfence();  // other threads must see the rows when this call returns
#endif
  return none;
}

template <typename K, bool STREAM>
int64_t copy_some(const GatherArgs& a, int64_t begin, int64_t end, int64_t none) {
  switch (a.row_bytes) {
    case 64: return copy_rows<K, 64, STREAM>(a, begin, end, none);
    case 128: return copy_rows<K, 128, STREAM>(a, begin, end, none);
    case 256: return copy_rows<K, 256, STREAM>(a, begin, end, none);
    case 512: return copy_rows<K, 512, STREAM>(a, begin, end, none);
  }
  if constexpr (!STREAM) {
    if (a.row_bytes == 4) return copy_rows<K, 4, false>(a, begin, end, none);
    if (a.row_bytes == 8) return copy_rows<K, 8, false>(a, begin, end, none);
  }
  return copy_rows<K, 0, STREAM>(a, begin, end, none);
}

template <typename K>
int run(const GatherArgs& a) {
  const int team = useful_threads(a.threads, a.num_edges * max2<int64_t>(a.row_bytes / 4, 1));
  advise_huge_pages(a.out, a.num_edges * a.row_bytes);
  const int64_t none = a.num_edges;
  int64_t bad = none;
  const bool stream = a.num_edges * a.row_bytes >= kStreamBytes && a.row_bytes % 64 == 0 &&
                      reinterpret_cast<uintptr_t>(a.out) % 64 == 0;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1) reduction(min : bad)
  for (int t = 0; t < team; ++t) {
    const int64_t begin = a.num_edges / team * t + a.num_edges % team * t / team;
    const int64_t end = a.num_edges / team * (t + 1) + a.num_edges % team * (t + 1) / team;
    const int64_t found = stream ? copy_some<K, true>(a, begin, end, none) : copy_some<K, false>(a, begin, end, none);
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
