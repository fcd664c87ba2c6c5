// Eight candidates at a time: squared distances below a bound are kept side by side.
#pragma once

#include "parallel.h"

#if defined(__AVX512F__) && defined(__AVX512VL__)
#include <immintrin.h>
#define GNNLAB_COMPRESS
#endif

namespace gnnlab::GNNLAB_NS {

typedef double Eight __attribute__((vector_size(64), aligned(8), may_alias));

inline constexpr int64_t kStep = 8;

// Writes the ids (and distances, where not null) of the first `count` of eight candidates with
// d2 < bound (d2 <= bound if `equal`), but not `same`; returns how many. Writes up to eight items.
inline __attribute__((always_inline)) int64_t keep(const Eight& d2, const int32_t* id, int64_t count, double bound, bool equal,
                    int32_t same, int32_t* ids, double* distances) {
#ifdef GNNLAB_COMPRESS
  const __m512d d = (__m512d)d2, limit = _mm512_set1_pd(bound);
  const __m256i own = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(id));
  unsigned good = equal ? _mm512_cmp_pd_mask(d, limit, _CMP_LE_OQ) : _mm512_cmp_pd_mask(d, limit, _CMP_LT_OQ);
  good &= _mm256_cmpneq_epi32_mask(own, _mm256_set1_epi32(same));
  if (count < kStep) good &= (1u << count) - 1;
  if (distances && !good) return 0;
  const __mmask8 mask = static_cast<__mmask8>(good);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(ids), _mm256_maskz_compress_epi32(mask, own));
  if (distances) _mm512_storeu_pd(distances, _mm512_maskz_compress_pd(mask, d));
  return __builtin_popcount(good);
#else
  int64_t n = 0;
  for (int64_t j = 0; j < min2(kStep, count); ++j) {
    ids[n] = id[j];
    if (distances) distances[n] = d2[j];
    n += (equal ? d2[j] <= bound : d2[j] < bound) & (id[j] != same);
  }
  return n;
#endif
}

// Sorts n different numbers; v and spare have room for 16 more. Runs of 64 are sorted by rank (how
// many are less: no branch, all in vectors), then merged.
inline void sort_ids(int32_t* v, int64_t n, int32_t* spare) {
  constexpr int64_t kRun = 64, kLanes = 16;
  typedef int32_t Lanes16 __attribute__((vector_size(64), aligned(4), may_alias));
  for (int64_t at = 0; at < n; at += kRun) {
    const int64_t m = min2(kRun, n - at);
    const int32_t* own = v + at;
    for (int64_t i = 0; i < m; i += kLanes) {
      const Lanes16 mine = *reinterpret_cast<const Lanes16*>(own + i);
      Lanes16 rank = {};
      for (int64_t j = 0; j < m; ++j) rank -= own[j] < mine;
      for (int64_t l = 0; l < min2(kLanes, m - i); ++l) spare[at + rank[l]] = mine[l];
    }
  }
  int32_t *from = spare, *to = v;
  for (int64_t run = kRun; run < n; run *= 2) {
    for (int64_t at = 0; at < n; at += 2 * run) {
      int64_t a = at, b = min2(at + run, n);
      const int64_t a_end = b, b_end = min2(at + 2 * run, n);
      for (int64_t o = at; o < b_end; ++o)
        to[o] = b == b_end || (a < a_end && from[a] < from[b]) ? from[a++] : from[b++];
    }
    int32_t* other = from;
    from = to;
    to = other;
  }
  if (from != v)
    for (int64_t i = 0; i < n; ++i) v[i] = from[i];
}

// The k least of the pairs (distance, id) that are offered, for small k: pairs not beyond the k-th
// so far pile up and are cut down to k now and then.
class Pile {
 public:
  static constexpr int64_t kMost = 256, kRoom = 1024;

  void start(int64_t k) {
    k_ = k;
    n_ = 0;
    worst_ = __builtin_inf();
  }
  int64_t size() const { return n_; }
  double worst() const { return worst_; }
  bool full() const { return n_ >= k_; }  // right after trim()
  const int32_t* id() const { return id_; }

  void offer(const Eight& d2, const int32_t* id, int64_t count, int32_t same) {
    if (n_ + kStep > kRoom) trim();
    n_ += keep(d2, id, count, worst_, true, same, id_ + n_, d_ + n_);
  }
  // Cuts the pile down to the k least; then worst() is the k-th distance, if there are k.
  void trim() {
    if (n_ < k_) return;
    worst_ = n_ == k_ ? largest() : kth();
    int64_t n = 0, less = 0;
    for (int64_t i = 0; i < n_; i += kStep) {
      const Eight d = *reinterpret_cast<const Eight*>(d_ + i);
      n += keep(d, id_ + i, n_ - i, worst_, true, -1, id_ + n, d_ + n);
    }
    n_ = n;
    if (n_ == k_) return;
    for (int64_t i = 0; i < n_; ++i) less += d_[i] < worst_;
    drop_ties(k_ - less);
  }
  // Sorts what is left by (distance, id).
  void finish() {
    trim();
    double d[kMost];
    int32_t id[kMost];
    for (int64_t i = 0; i < n_; ++i) {
      int64_t rank = 0;
      for (int64_t j = 0; j < n_; ++j)
        rank += (d_[j] < d_[i]) | ((d_[j] == d_[i]) & (id_[j] < id_[i]));
      d[rank] = d_[i];
      id[rank] = id_[i];
    }
    for (int64_t i = 0; i < n_; ++i) {
      d_[i] = d[i];
      id_[i] = id[i];
    }
  }

 private:
  double largest() const {
    double most = d_[0];
    for (int64_t i = 1; i < n_; ++i) most = max2(most, d_[i]);
    return most;
  }
  double kth() {
    for (int64_t i = 0; i < n_; ++i) work_[0][i] = d_[i];
    return least(n_, k_);
  }
  // The k-th least of the first n numbers of work_[0]: by halving around pivots.
  double least(int64_t n, int64_t k) {
    double* from = work_[0];
    double* to = work_[1];
    for (;;) {
      const double a = from[0], b = from[n / 2], c = from[n - 1];
      const double pivot = max2(min2(a, b), min2(max2(a, b), c));
      int64_t less = 0, equal = 0;
      for (int64_t i = 0; i < n; ++i) {
        less += from[i] < pivot;
        equal += from[i] == pivot;
      }
      if (k > less && k <= less + equal) return pivot;
      const bool low = k <= less;
      int64_t m = 0;
      for (int64_t i = 0; i < n; ++i) {
        to[m] = from[i];
        m += low ? from[i] < pivot : from[i] > pivot;
      }
      if (!low) k -= less + equal;
      n = m;
      double* other = from;
      from = to;
      to = other;
    }
  }
  // Of the pairs at distance worst() keeps the `left` least ids.
  void drop_ties(int64_t left) {
    int64_t ties = 0;
    for (int64_t i = 0; i < n_; ++i) {
      work_[0][ties] = id_[i];
      ties += d_[i] == worst_;
    }
    const int32_t last = static_cast<int32_t>(least(ties, left));
    int64_t n = 0;
    for (int64_t i = 0; i < n_; ++i) {
      d_[n] = d_[i];
      id_[n] = id_[i];
      n += (d_[i] < worst_) | (id_[i] <= last);
    }
    n_ = n;
  }

  int64_t k_ = 0, n_ = 0;
  double worst_ = 0;
  double d_[kRoom + 8], work_[2][kRoom + 8];
  int32_t id_[kRoom + 8];
};

}  // namespace gnnlab::GNNLAB_NS
