// Sums of messages that a formula makes of both ends, or of one end and the edge, without an (E, F)
// array: relu(x[j] + e), and sigmoid(key[i] + query[j]) * value[j]. Both with their gradients.
//
// Algorithm: a tile of up to four Lanes of columns of a row is kept in registers while the row's edges
//   pass by; each message is computed from its gathered rows and added at once. Gradients of sources
//   are the same walk over the transpose, with the formula's derivative; what depends on the row alone
//   is multiplied in when the tile is written. Rows that are needed later are asked for early.
// Reads 8 (M + 1) + 8 E + s E F per gathered operand, writes s M F (and s E F for a gradient of e).
// Order of sums: by place; rows of more than kBlock edges in blocks that are added in order. The same
//   for every number of threads and every instruction set. bfloat16, float16: float32, rounded once.
// Measured by: gnnlab.bench.layers, rows "GINE" and "gated".
#include "chunks.h"
#include "families.h"
#include "row_scores.h"

namespace gnnlab::GNNLAB_NS {
namespace {

constexpr int64_t kChunkEdges = 512, kAhead = 12;

template <int T, typename S>
GNNLAB_ALWAYS void fetch(const S* row) {
  constexpr int kBytes = T * 64 / static_cast<int>(sizeof(Compute<S>)) * static_cast<int>(sizeof(S));
#pragma GCC unroll 4
  for (int b = 0; b < kBytes; b += 64) __builtin_prefetch(reinterpret_cast<const char*>(row) + b);
}

// What one edge offers to a formula: the row of the other end, and its own. A message also sees a tile
// of own(), an operand with a row for each row of the walk.
struct Ends {
  int64_t other, edge;
};

// relu(x[j] + e); rows are destinations.
template <typename S>
struct Relu {
  using C = Compute<S>;
  static constexpr int kOut = 1;
  const S *x, *edge;
  int64_t ld;
  const S* own() const { return nullptr; }
  template <int T>
  GNNLAB_ALWAYS void ahead(Ends e, int64_t at) const {
    fetch<T>(x + e.other * ld + at);
    fetch<T>(edge + e.edge * ld + at);
  }
  template <int T>
  GNNLAB_ALWAYS void add(Ends e, int64_t at, int count, const Lanes<C> (&)[T],
                         Lanes<C> (&sum)[kOut][T]) const {
    constexpr int L = Lanes<C>::kCount;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Lanes<C> m = load_some(x + e.other * ld + at + t * L, count) +
                         load_some(edge + e.edge * ld + at + t * L, count);
      sum[0][t] = sum[0][t] + each_vector<C>([&](int q) GNNLAB_LAMBDA {
        return m.v[q] < 0 ? typename Lanes<C>::Vector{} : m.v[q];  // a NaN stays
      });
    }
  }
  GNNLAB_ALWAYS Lanes<C> finish(int, int64_t, int64_t, int, const Lanes<C>& sum) const { return sum; }
};

// Its gradients; rows are sources, the other ends destinations.
template <typename S>
struct ReluBackward {
  using C = Compute<S>;
  static constexpr int kOut = 1;
  const S *x, *edge, *grad;
  int64_t ld;
  S* gedge;
  const S* own() const { return x; }
  template <int T>
  GNNLAB_ALWAYS void ahead(Ends e, int64_t at) const {
    fetch<T>(grad + e.other * ld + at);
    fetch<T>(edge + e.edge * ld + at);
  }
  template <int T>
  GNNLAB_ALWAYS void add(Ends e, int64_t at, int count, const Lanes<C> (&mine)[T],
                         Lanes<C> (&sum)[kOut][T]) const {
    constexpr int L = Lanes<C>::kCount;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Lanes<C> m = mine[t] + load_some(edge + e.edge * ld + at + t * L, count);
      const Lanes<C> g = load_some(grad + e.other * ld + at + t * L, count);
      const Lanes<C> kept = each_vector<C>([&](int q) GNNLAB_LAMBDA {
        return m.v[q] <= 0 ? typename Lanes<C>::Vector{} : g.v[q];
      });
      sum[0][t] = sum[0][t] + kept;
      if (gedge) store_some(gedge + e.edge * ld + at + t * L, kept, count);
    }
  }
  GNNLAB_ALWAYS Lanes<C> finish(int, int64_t, int64_t, int, const Lanes<C>& sum) const { return sum; }
};

template <typename C>
GNNLAB_ALWAYS Lanes<C> sigmoid(const Lanes<C>& x) {
  const Lanes<C> one = same(C{1});
  return one / (one + exp_lanes(same(C{0}) - x));
}

// sigmoid(key[i] + query[j]) * value[j], or with SLOPE the derivative of the sigmoid instead of it;
// rows are destinations.
template <typename S, bool SLOPE>
struct Gated {
  using C = Compute<S>;
  static constexpr int kOut = 1;
  const S *key, *query, *value, *grad;  // grad: what the row's sum is multiplied by
  int64_t ld;
  const S* own() const { return key; }
  template <int T>
  GNNLAB_ALWAYS void ahead(Ends e, int64_t at) const {
    fetch<T>(query + e.other * ld + at);
    fetch<T>(value + e.other * ld + at);
  }
  template <int T>
  GNNLAB_ALWAYS void add(Ends e, int64_t at, int count, const Lanes<C> (&mine)[T],
                         Lanes<C> (&sum)[kOut][T]) const {
    constexpr int L = Lanes<C>::kCount;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      Lanes<C> s = sigmoid(mine[t] + load_some(query + e.other * ld + at + t * L, count));
      if constexpr (SLOPE) s = s * (same(C{1}) - s);
      sum[0][t] = sum[0][t] + s * load_some(value + e.other * ld + at + t * L, count);
    }
  }
  GNNLAB_ALWAYS Lanes<C> finish(int, int64_t row, int64_t at, int count, const Lanes<C>& sum) const {
    if constexpr (SLOPE) return sum * load_some(grad + row * ld + at, count);
    else return sum;
  }
};

// The gradients of value and query; rows are sources, the other ends destinations.
template <typename S>
struct GatedBackward {
  using C = Compute<S>;
  static constexpr int kOut = 2;
  const S *key, *query, *value, *grad;
  int64_t ld;
  const S* own() const { return query; }
  template <int T>
  GNNLAB_ALWAYS void ahead(Ends e, int64_t at) const {
    fetch<T>(key + e.other * ld + at);
    fetch<T>(grad + e.other * ld + at);
  }
  template <int T>
  GNNLAB_ALWAYS void add(Ends e, int64_t at, int count, const Lanes<C> (&mine)[T],
                         Lanes<C> (&sum)[kOut][T]) const {
    constexpr int L = Lanes<C>::kCount;
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const Lanes<C> s = sigmoid(mine[t] + load_some(key + e.other * ld + at + t * L, count));
      const Lanes<C> g = s * load_some(grad + e.other * ld + at + t * L, count);
      sum[0][t] = sum[0][t] + g;
      sum[1][t] = sum[1][t] + g * (same(C{1}) - s);
    }
  }
  GNNLAB_ALWAYS Lanes<C> finish(int out, int64_t row, int64_t at, int count,
                                const Lanes<C>& sum) const {
    return out == 0 ? sum : sum * load_some(value + row * ld + at, count);
  }
};

template <typename S, typename I, class Message>
struct Sums {
  using C = Compute<S>;
  static constexpr int L = Lanes<C>::kCount, kOut = Message::kOut;
  gnnlab_rows rows;
  int64_t width;
  Message message;
  S* out[kOut];

  int64_t packs() const { return (width + L - 1) / L; }

  template <int T>
  void tile(const Chunk& c, int64_t row, int64_t at, int count, C* slot) const {
    const I* col = static_cast<const I*>(rows.col);
    const I* perm = static_cast<const I*>(rows.perm);
    Lanes<C> mine[T], sum[kOut][T];
    if (const S* own = message.own())
      for (int t = 0; t < T; ++t) mine[t] = load_some(own + row * width + at + t * L, count);
#pragma GCC unroll 2
    for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sum[o][t] = same(C{0});
    const int64_t end = row_end(rows, c, row), last = rows.num_edges - 1;
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      const int64_t later = min2(k + kAhead, last);
      message.template ahead<T>(Ends{listed(col, later), listed(perm, later)}, at);
      message.template add<T>(Ends{listed(col, k), listed(perm, k)}, at, count, mine, sum);
    }
    for (int o = 0; o < kOut; ++o)
      for (int t = 0; t < T; ++t) {
        if (slot) store_lanes(slot + (o * packs() + at / L + t) * L, sum[o][t]);
        else if (out[o]) write(o, row, at + t * L, count, sum[o][t]);
      }
  }

  void write(int o, int64_t row, int64_t at, int count, const Lanes<C>& sum) const {
    store_some(out[o] + row * width + at, message.finish(o, row, at, count, sum), count);
  }

  void do_chunk(const Chunk& c, C* slots) const {
    C* slot = c.slot < 0 ? nullptr : slots + c.slot * kOut * packs() * L;
    for (int64_t row = c.first; row < c.last; ++row) {
      int64_t at = 0;
      for (; at + 4 * L <= width; at += 4 * L) tile<4>(c, row, at, L, slot);
      for (; at < width; at += L) tile<1>(c, row, at, static_cast<int>(min2<int64_t>(L, width - at)), slot);
    }
  }

  int run(int threads) const {
    if (width == 0 || rows.num_rows == 0) return GNNLAB_OK;
    const int team = useful_threads(threads, (rows.num_edges + rows.num_rows) * 2 * width);
    const int64_t size = kOut * packs() * L;
    Scratch<C> slots(num_slots(rows) * size);
    if (!slots.data) return no_memory();
    for (S* to : out)
      if (to) advise_huge_pages(to, rows.num_rows * width * sizeof(S));
    const bool any_long = on_threads(rows, team, [&](int, Cut from, Cut to) {
      return walk(rows, from, to, kChunkEdges, [&](const Chunk& c) { do_chunk(c, slots.data); });
    });
    if (!any_long) return GNNLAB_OK;
    C* whole = nullptr;
    for_each_long(rows, [&](int64_t row, int64_t slot, int64_t block, int64_t blocks) {
      C* part = slots.data + slot * size;
      if (block == 0) whole = part;
      else
        for (int64_t i = 0; i < size; ++i) whole[i] += part[i];
      if (block + 1 < blocks) return;
      for (int o = 0; o < kOut; ++o)
        for (int64_t at = 0; out[o] && at < width; at += L)
          write(o, row, at, static_cast<int>(min2<int64_t>(L, width - at)),
                load_lanes(whole + (o * packs() + at / L) * L));
    });
    return GNNLAB_OK;
  }
};

}  // namespace

int relu_sum(const gnnlab_rows* rows, const void* x, const void* edge, int64_t width, int dtype,
             void* out, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    const Relu<S> message{static_cast<const S*>(x), static_cast<const S*>(edge), width};
    return Sums<S, decltype(i), Relu<S>>{*rows, width, message, {static_cast<S*>(out)}}.run(threads);
  });
}

int relu_sum_backward(const gnnlab_rows* rows_t, const void* grad, const void* x, const void* edge,
                      int64_t width, int dtype, void* gx, void* gedge, int threads) {
  return with_types(dtype, rows_t->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    const ReluBackward<S> message{static_cast<const S*>(x), static_cast<const S*>(edge),
                                  static_cast<const S*>(grad), width, static_cast<S*>(gedge)};
    return Sums<S, decltype(i), ReluBackward<S>>{*rows_t, width, message, {static_cast<S*>(gx)}}.run(
        threads);
  });
}

int gated_sum(const gnnlab_rows* rows, const void* key, const void* query, const void* value,
              int64_t width, int dtype, void* out, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    using Message = Gated<S, false>;
    const Message message{static_cast<const S*>(key), static_cast<const S*>(query),
                          static_cast<const S*>(value), nullptr, width};
    return Sums<S, decltype(i), Message>{*rows, width, message, {static_cast<S*>(out)}}.run(threads);
  });
}

int gated_sum_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                       const void* key, const void* query, const void* value, int64_t width, int dtype,
                       void* gkey, void* gquery, void* gvalue, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    using I = decltype(i);
    const auto* k = static_cast<const S*>(key);
    const auto* q = static_cast<const S*>(query);
    const auto* v = static_cast<const S*>(value);
    const auto* g = static_cast<const S*>(grad);
    if (gkey) {
      using Target = Gated<S, true>;
      const int status = Sums<S, I, Target>{*rows, width, Target{k, q, v, g, width}, {static_cast<S*>(gkey)}}
                             .run(threads);
      if (status != GNNLAB_OK) return status;
    }
    if (!gquery && !gvalue) return static_cast<int>(GNNLAB_OK);
    using Source = GatedBackward<S>;
    return Sums<S, I, Source>{*rows_t, width, Source{k, q, v, g, width},
                              {static_cast<S*>(gvalue), static_cast<S*>(gquery)}}.run(threads);
  });
}

}  // namespace gnnlab::GNNLAB_NS
