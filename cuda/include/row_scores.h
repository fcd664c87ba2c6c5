// Scores: per-edge numbers of a chunk in a buffer, `padded` heads per place, and softmax over rows.
//
// A row of n scores is one run of n * padded numbers. With up to one Lanes of heads, lane l belongs to
// head l mod padded: each Lanes holds several places, and the tree over a row is lane by lane, then
// across lanes of equal head. With more heads every Lanes of heads is its own column.
// Buffers have room for one Lanes past their end: rows are written in order, so what spills over the
// end of one row is overwritten by the next.
#pragma once

#include "chunks.h"
#include "lanes.h"

namespace gnnlab::GNNLAB_NS {

struct AsIs {
  template <typename C, int B>
  GNNLAB_ALWAYS Lanes<C, B> operator()(const Lanes<C, B>& x) const { return x; }
};
template <typename C>
struct Leaky {
  C slope;
  template <int B>
  GNNLAB_ALWAYS Lanes<C, B> operator()(const Lanes<C, B>& x) const { return leaky(x, slope); }
};

// Runs use(std::integral_constant H): H = heads if it is 1, 2, 4, 8 or 16 and fills whole places.
template <class Use>
inline void with_heads(int64_t heads, const Use& use) {
  switch (heads) {
    case 1: return use(std::integral_constant<int, 1>{});
    case 2: return use(std::integral_constant<int, 2>{});
    case 4: return use(std::integral_constant<int, 4>{});
    case 8: return use(std::integral_constant<int, 8>{});
    case 16: return use(std::integral_constant<int, 16>{});
    default: return use(std::integral_constant<int, 0>{});
  }
}

// Calls use(v, h) with vectors over the heads of one place: term(Width, h) gives heads h ...
template <typename C, int H, class Use>
GNNLAB_ALWAYS void over_heads(int64_t heads, const Use& use) {
  if constexpr (H == 0) {
    for (int64_t h = 0; h < heads; ++h) use(std::integral_constant<int, 1>{}, h);
  } else {
    constexpr int N = H < Lanes<C>::kNative ? H : Lanes<C>::kNative;
#pragma GCC unroll 8
    for (int h = 0; h < H; h += N) use(std::integral_constant<int, N>{}, h);
  }
}

// buffer[k] = src[perm[k]] for places [begin, end).
template <typename S, typename I>
void collect(const I* perm, const S* src, int64_t begin, int64_t end, int64_t heads, int64_t padded,
             Compute<S>* buffer) {
  using C = Compute<S>;
  if constexpr (__is_same(S, Compute<S>)) {
    if (!perm && heads == padded) {
      const size_t bytes = static_cast<size_t>((end - begin) * heads) * sizeof(S);
      if (bytes) __builtin_memcpy(buffer, src + begin * heads, bytes);
      return;
    }
  }
  with_heads(heads, [&](auto h_of) GNNLAB_LAMBDA {
    constexpr int H = decltype(h_of)::value;
    const int64_t step = H ? H : padded;
    for (int64_t k = begin; k < end; ++k) {
      const S* from = src + one_by_one(listed(perm, k)) * (H ? H : heads);
      C* to = buffer + (k - begin) * step;
      over_heads<C, H>(heads, [&](auto n, int64_t h) GNNLAB_LAMBDA {
        store<C, decltype(n)::value>(to + h, load<S, decltype(n)::value>(from + h));
      });
      if constexpr (H == 0)
        for (int64_t h = heads; h < padded; ++h) to[h] = 0;
    }
  });
}

// out[perm[k]] = buffer[k], rounded.
template <typename S, typename I>
void deliver(const I* perm, const Compute<S>* buffer, int64_t begin, int64_t end, int64_t heads,
             int64_t padded, S* out) {
  using C = Compute<S>;
  if constexpr (__is_same(S, Compute<S>)) {
    if (!perm && heads == padded) {
      const size_t bytes = static_cast<size_t>((end - begin) * heads) * sizeof(S);
      if (bytes) __builtin_memcpy(out + begin * heads, buffer, bytes);
      return;
    }
  }
  with_heads(heads, [&](auto h_of) GNNLAB_LAMBDA {
    constexpr int H = decltype(h_of)::value;
    const int64_t step = H ? H : padded;
    for (int64_t k = begin; k < end; ++k) {
      const C* from = buffer + (k - begin) * step;
      S* to = out + one_by_one(listed(perm, k)) * (H ? H : heads);
      over_heads<C, H>(heads, [&](auto n, int64_t h) GNNLAB_LAMBDA {
        store<S, decltype(n)::value>(to + h, load<C, decltype(n)::value>(from + h));
      });
    }
  });
}

// The statistics of one row (padded numbers), repeated to fill a Lanes.
template <typename C>
GNNLAB_ALWAYS Lanes<C> periodic(const C* row, int64_t padded) {
  constexpr int64_t L = Lanes<C>::kCount;
  if (padded == 1) return same(row[0]);
  if (padded >= L) return load_lanes(row);
  C filled[L];
  for (int64_t l = 0; l < L; l += padded) __builtin_memcpy(filled + l, row, padded * sizeof(C));
  return load_lanes(filled);
}

// 1 / a, where all lanes are equal if P is 1.
template <int P, typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> inverse(const Lanes<C, B>& a) {
  if constexpr (P == 1) return same<C, B>(C{1} / a.v[0][0]);
  else return same<C, B>(C{1}) / a;
}

// Walks the Lanes of a row of n places: use(offset of the Lanes, lanes in use), per column of heads
// begin(first head) and end(first head).
template <typename C, class Begin, class Use, class End>
GNNLAB_ALWAYS void along_row(int64_t n, int64_t padded, const Begin& begin, const Use& use,
                             const End& end) {
  constexpr int64_t L = Lanes<C>::kCount;
  if (padded <= L) {
    begin(int64_t{0});
    for (int64_t at = 0; at < n * padded; at += L) use(at, n * padded - at);
    return end(int64_t{0});
  }
  for (int64_t h = 0; h < padded; h += L) {
    begin(h);
    for (int64_t k = 0; k < n; ++k) use(k * padded + h, L);
    end(h);
  }
}

// softmax_row where all places fit into Lanes of B bytes.
template <bool NORMAL, int P, int B, typename C, class Score>
GNNLAB_ALWAYS void softmax_short(const C* s, int64_t n, const Score& score, C* p, C* largest,
                                 C* total) {
  const C none = -static_cast<C>(__builtin_inf());
  const Lanes<C, B> x = first_lanes(score(load_lanes<C, B>(s)), none, n * P);
  const Lanes<C, B> top = fold_max(x, P);
  const Lanes<C, B> e = exp_lanes(x - shift_of(top));
  const Lanes<C, B> sum = fold_sum(e, P);
  store_lanes(largest, top);
  store_lanes(total, sum);
  store_lanes(p, NORMAL ? e * inverse<P>(sum) : e);
}

// p = exp(score - largest) for one row of n > 0 places, largest and total (padded each); NORMAL
// divides by total. `score` turns what lies in the buffer into a score. P is `padded`, or 0: any.
template <bool NORMAL, int P, typename C, class Score>
GNNLAB_ALWAYS void softmax_row(const C* s, int64_t n, int64_t any_padded, const Score& score, C* p,
                               C* largest, C* total) {
  constexpr int64_t L = Lanes<C>::kCount;
  const int64_t padded = P ? P : any_padded;
  const C none = -static_cast<C>(__builtin_inf());
  if (P && 2 * n * padded <= L && 2 * P <= L)
    return softmax_short<NORMAL, P, 32>(s, n, score, p, largest, total);
  if (P && n * padded <= L)
    return softmax_short<NORMAL, P, 64>(s, n, score, p, largest, total);
  Lanes<C> top, shift, sum;
  along_row<C>(n, padded, [&](int64_t) GNNLAB_LAMBDA { top = same(none); },
               [&](int64_t at, int64_t left) GNNLAB_LAMBDA {
                 top = larger(first_lanes(score(load_lanes(s + at)), none, left), top);
               },
               [&](int64_t h) GNNLAB_LAMBDA { store_lanes(largest + h, fold_max(top, padded)); });
  along_row<C>(n, padded,
               [&](int64_t h) GNNLAB_LAMBDA {
                 top = load_lanes(largest + h);
                 shift = shift_of(top);
                 sum = same(C{0});
               },
               [&](int64_t at, int64_t left) GNNLAB_LAMBDA {
                 const Lanes<C> e =
                     exp_lanes(first_lanes(score(load_lanes(s + at)), none, left) - shift);
                 sum = sum + e;
                 store_lanes(p + at, e);
               },
               [&](int64_t h) GNNLAB_LAMBDA { store_lanes(total + h, fold_sum(sum, padded)); });
  if (!NORMAL) return;
  along_row<C>(n, padded, [&](int64_t h) GNNLAB_LAMBDA { sum = inverse<P>(load_lanes(total + h)); },
               [&](int64_t at, int64_t) GNNLAB_LAMBDA { store_lanes(p + at, load_lanes(p + at) * sum); },
               [](int64_t) GNNLAB_LAMBDA {});
}

// softmax_row for the rows of a chunk. An empty row has largest 0 and total 0.
template <bool NORMAL, typename C, class Score>
void softmax_rows(const gnnlab_rows& rows, const Chunk& c, const C* s, int64_t padded,
                  const Score& score, C* p, C* largest, C* total) {
  with_heads(padded <= Lanes<C>::kCount ? padded : 0, [&](auto h_of) GNNLAB_LAMBDA {
    constexpr int P = decltype(h_of)::value;
    const int64_t step = P ? P : padded;
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows, c, row), n = row_end(rows, c, row) - begin;
      C* top = largest + (row - c.first) * step;
      C* sum = total + (row - c.first) * step;
      if (n > 0) {
        const int64_t at = (begin - c.begin) * step;
        softmax_row<NORMAL, P>(s + at, n, padded, score, p + at, top, sum);
      } else {
        for (int64_t h = 0; h < padded; ++h) top[h] = sum[h] = 0;
      }
    }
  });
}

// Joins the statistics of the blocks of a long row: `stats` of a slot is largest, then total.
// Afterwards all slots of the row hold those of the whole row, and scale(slot, h) was called with
// what the sums of a block must be multiplied by.
template <typename C, class Scale>
void join_statistics(const gnnlab_rows& rows, int64_t padded, C* stats, const Scale& scale) {
  constexpr int N = Lanes<C>::kNative;
  int64_t first_slot = 0;
  const auto power = [](C x) GNNLAB_LAMBDA {
    Vec<C, N> v = Vec<C, N>{} + x;
    return exp_vector<N>(v)[0];
  };
  for_each_long(rows, [&](int64_t row, int64_t slot, int64_t block, int64_t blocks) {
    if (block > 0) return;
    const int64_t begin = rows.indptr[row];
    first_slot = slot;
    C* whole = stats + first_slot * 2 * padded;
    const auto slot_at = [&](int64_t b) { return slot_of(begin + b * kBlock, b + 1 == blocks); };
    for (int64_t h = 0; h < padded; ++h) {
      C top = whole[h], sum = 0;
      for (int64_t b = 1; b < blocks; ++b) top = max2(top, stats[slot_at(b) * 2 * padded + h]);
      const C shift = top == -static_cast<C>(__builtin_inf()) ? C{0} : top;
      for (int64_t b = 0; b < blocks; ++b) {
        C* part = stats + slot_at(b) * 2 * padded;
        const C factor = power(part[h] - shift);
        sum += part[padded + h] * factor;
        scale(slot_at(b), h, factor);
      }
      for (int64_t b = 0; b < blocks; ++b) {
        C* part = stats + slot_at(b) * 2 * padded;
        part[h] = top;
        part[padded + h] = sum;
      }
    }
  });
}

// Calls use(S, I) with the types of items and indices.
template <class Use>
int with_types(int dtype, int index_bytes, const Use& use) {
  const auto indexed = [&](auto item) {
    return index_bytes == 4 ? use(item, int32_t{}) : use(item, int64_t{});
  };
  switch (dtype) {
    case GNNLAB_F32: return indexed(float{});
    case GNNLAB_F64: return indexed(double{});
    case GNNLAB_BF16: return indexed(Bf16{});
    default: return indexed(F16{});
  }
}

}  // namespace gnnlab::GNNLAB_NS
