// Stable counting sort of edges by a small integer key; see cpu/plan.cpp for the account of it.
#pragma once

#include "parallel.h"

namespace gnnlab::GNNLAB_NS {

// Fills indptr (num_keys + 1) and, where not null, perm (edge at each place) and
// col (other[perm]). K is the type of the indices, I the type of the results.
template <typename K, typename I>
int counting_sort(const K* key, const K* other, int64_t num_edges, int64_t num_keys,
                  int64_t num_other, int64_t* indptr, I* col, I* perm, int threads) {
  // One histogram per thread; more threads than this would spend their time on histograms.
  int team = useful_threads(threads, num_edges);
  team = static_cast<int>(max2<int64_t>(1, min2<int64_t>(team, 4 * num_edges / max2<int64_t>(num_keys, 1))));
  Scratch<I> next(num_keys * team);
  Scratch<int64_t> share(team + 1);
  if (!next.data || !share.data) return no_memory();
  int64_t bad_key = 0, bad_other = 0;

#pragma omp parallel num_threads(team) if (team > 1) reduction(+ : bad_key, bad_other)
  {
    const int64_t crew = team_size(), me = team_rank();
    const int64_t begin = num_edges / crew * me + min2(me, num_edges % crew);
    const int64_t end = begin + num_edges / crew + (me < num_edges % crew ? 1 : 0);
    I* mine = next.data + me * num_keys;
    for (int64_t k = 0; k < num_keys; ++k) mine[k] = 0;
    for (int64_t e = begin; e < end; ++e) {
      const uint64_t k = static_cast<uint64_t>(key[e]);
      if (__builtin_expect(k < static_cast<uint64_t>(num_keys), 1)) ++mine[k]; else ++bad_key;
    }
#pragma omp barrier
    // Exclusive scan over (key, thread): each thread sums a range of keys, then offsets it.
    const int64_t key_begin = num_keys / crew * me + min2(me, num_keys % crew);
    const int64_t key_end = key_begin + num_keys / crew + (me < num_keys % crew ? 1 : 0);
    int64_t sum = 0;
    for (int64_t t = 0; t < crew; ++t)
      for (int64_t k = key_begin; k < key_end; ++k) sum += next.data[t * num_keys + k];
    share.data[me] = sum;
#pragma omp barrier
    int64_t start = 0;
    for (int64_t t = 0; t < me; ++t) start += share.data[t];
    for (int64_t k = key_begin; k < key_end; ++k) {
      indptr[k] = start;
      for (int64_t t = 0; t < crew; ++t) {
        I& slot = next.data[t * num_keys + k];
        const I count = slot;
        slot = static_cast<I>(start);
        start += count;
      }
    }
    if (me == crew - 1) indptr[num_keys] = start;
#pragma omp barrier
    if (col || perm) {
      // Writes go here and there in arrays that the second-level cache cannot hold: ask early.
      constexpr int64_t kAhead = 16, kLarge = 1 << 18;
      const bool ask = num_edges >= kLarge;
      for (int64_t e = begin; e < end; ++e) {
        const uint64_t later = ask ? static_cast<uint64_t>(key[min2(e + kAhead, end - 1)]) : ~uint64_t{0};
        if (later < static_cast<uint64_t>(num_keys)) {
          const I place = mine[later];
          if (col) __builtin_prefetch(col + place, 1);
          if (perm) __builtin_prefetch(perm + place, 1);
        }
        const uint64_t k = static_cast<uint64_t>(key[e]);
        if (__builtin_expect(k >= static_cast<uint64_t>(num_keys), 0)) continue;
        const I place = mine[k]++;
        if (col) {
          const K o = other[e];
          bad_other += static_cast<uint64_t>(o) >= static_cast<uint64_t>(num_other);
          col[place] = static_cast<I>(o);
        }
        if (perm) perm[place] = static_cast<I>(e);
      }
    }
  }
  if (bad_key) return report_bad_index(key, num_edges, num_keys);
  if (bad_other) return report_bad_index(other, num_edges, num_other);
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
