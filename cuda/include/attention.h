// What fused attention's forward and backward passes share: the operands, the scores of a chunk of
// edges, and dropout's random numbers.
//
// The same functions serve both orders of edges. In the order of destinations "own" is the row's
// destination and "other" the source that col names; in the transpose the two change places.
#pragma once

#include "philox.h"
#include "row_ops.h"
#include "row_scores.h"

namespace gnnlab::GNNLAB_NS {

enum class Kind { gat, gatv2, attention };

template <typename S>
struct Attention {
  using C = Compute<S>;
  Kind kind;
  int64_t heads, width;
  const S* values;  // x, x_src or v
  const S* source;  // a_src, x_src or k
  const S* target;  // a_dst, x_dst or q
  const S* edge;    // edge or bias, may be null
  const S* att;
  C slope;  // of LeakyReLU
  C scale;
  double dropout;
  uint64_t seed;

  // LeakyReLU of the score itself: GAT alone has one.
  C outer_slope() const { return kind == Kind::gat ? slope : C{1}; }
  int64_t row_items() const { return heads * width; }
  // A chunk's gathered rows should stay in the second cache when they are read twice.
  int64_t target_edges() const {
    const int64_t padded = padded_heads<C>(heads);
    if (kind == Kind::gat) return max2<int64_t>(2048 / padded, 1);
    return max2<int64_t>(min2<int64_t>(2048 / padded, 8192 / max2<int64_t>(row_items(), 1)), 1);
  }
};

// s[k] = own[row] + other[col[k]] (+ edge[perm[k]]) per head, for the chunk's places.
template <typename S, typename I>
void add_scores(const gnnlab_rows& rows, const Chunk& c, int64_t heads, int64_t padded, const S* own,
                const S* other, const S* edge, Compute<S>* s) {
  using C = Compute<S>;
  const I* col = static_cast<const I*>(rows.col);
  const I* perm = static_cast<const I*>(rows.perm);
  with_heads(heads, [&](auto h_of) GNNLAB_LAMBDA {
    constexpr int H = decltype(h_of)::value;
    const int64_t step = H ? H : padded;
    for (int64_t row = c.first; row < c.last; ++row) {
      const S* mine = own + row * heads;
      const int64_t end = row_end(rows, c, row);
      for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
        const S* from = other + one_by_one(listed(col, k)) * (H ? H : heads);
        const S* extra = edge ? edge + listed(perm, k) * (H ? H : heads) : nullptr;
        C* to = s + (k - c.begin) * step;
        over_heads<C, H>(heads, [&](auto n, int64_t h) GNNLAB_LAMBDA {
          constexpr int N = decltype(n)::value;
          auto sum = load<S, N>(mine + h) + load<S, N>(from + h);
          if (extra) sum += load<S, N>(extra + h);
          store<C, N>(to + h, sum);
        });
        if constexpr (H == 0)
          for (int64_t h = heads; h < padded; ++h) to[h] = 0;
      }
    }
  });
}

// s[k] = <att, LeakyReLU(own[row] + other[col[k]] + edge[perm[k]])> per head.
template <typename S, typename I, class Shape>
void gatv2_scores(const Attention<S>& job, const Dims& dims, const gnnlab_rows& rows, const Chunk& c,
                  const S* own, const S* other, Compute<S>* s) {
  using C = Compute<S>;
  const Shape shape(dims);
  const I* col = static_cast<const I*>(rows.col);
  const I* perm = static_cast<const I*>(rows.perm);
  const int64_t ld = job.row_items();
  const C slope = job.slope;
  const typename Shape::template Held<S> att(job.att);
  for (int64_t row = c.first; row < c.last; ++row) {
    const typename Shape::template Held<S> mine(own + row * ld);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      const S* from = other + listed(col, k) * ld;
      const S* extra = job.edge ? job.edge + listed(perm, k) * ld : nullptr;
      shape.dots([&](int pack, int64_t at, int count) GNNLAB_LAMBDA {
        Lanes<C> t = mine.get(pack, at, count) + load_some(from + at, count);
        if (extra) t = t + load_some(extra + at, count);
        return leaky(t, slope) * att.get(pack, at, count);
      }, s + (k - c.begin) * dims.padded);
    }
  }
}

// s = scale * s (+ bias[perm[k]]).
template <typename S, typename I>
void scale_scores(const gnnlab_rows& rows, const Chunk& c, const Dims& dims, Compute<S> scale,
                  const S* bias, Compute<S>* s) {
  using C = Compute<S>;
  const int64_t n = (c.end - c.begin) * dims.padded;
  for (int64_t at = 0; at < n; at += Lanes<C>::kCount)
    store_lanes(s + at, load_lanes(s + at) * same(scale));
  if (!bias) return;
  const I* perm = static_cast<const I*>(rows.perm);
  for (int64_t k = c.begin; k < c.end; ++k) {
    const S* extra = bias + listed(perm, k) * dims.heads;
    C* to = s + (k - c.begin) * dims.padded;
    for (int64_t h = 0; h < dims.heads; ++h) to[h] += item(extra + h);
  }
}

// The scores of a chunk before their LeakyReLU, if they have one. `transposed`: rows are sources.
template <typename S, typename I>
void scores(const Attention<S>& job, const Dims& dims, const RowOps<S>& ops, const gnnlab_rows& rows,
            const Chunk& c, bool transposed, Compute<S>* s) {
  const S* own = transposed ? job.source : job.target;
  const S* other = transposed ? job.target : job.source;
  if (job.kind == Kind::gat) {
    add_scores<S, I>(rows, c, job.heads, dims.padded, own, other, job.edge, s);
  } else if (job.kind == Kind::gatv2) {
    with_shape<S, I>(job.heads, job.width, [&](auto tag) {
      gatv2_scores<S, I, typename decltype(tag)::type>(job, dims, rows, c, own, other, s);
    });
  } else {
    ops.dots(dims, rows, c, own, job.row_items(), other, job.row_items(), s, nullptr, c.begin);
    scale_scores<S, I>(rows, c, dims, job.scale, job.edge, s);
  }
}

// The random word of one edge and head.
GNNLAB_ALWAYS uint32_t philox(uint64_t edge, uint32_t head, uint64_t seed) {
  return philox_block(edge, head, 0, seed).word[0];
}

// Multiplies the numbers of dropped edges by 0, all others by 1 / (1 - dropout).
template <typename S, typename I>
void drop(const Attention<S>& job, const Dims& dims, const gnnlab_rows& rows, const Chunk& c,
          Compute<S>* p) {
  using C = Compute<S>;
  if (job.dropout <= 0) return;
  const I* perm = static_cast<const I*>(rows.perm);
  const uint64_t limit = static_cast<uint64_t>(__builtin_ceil(job.dropout * 4294967296.0));
  const C kept = job.dropout < 1 ? static_cast<C>(1 / (1 - job.dropout)) : C{0};
  for (int64_t k = c.begin; k < c.end; ++k) {
    const uint64_t edge = static_cast<uint64_t>(listed(perm, k));
    C* row = p + (k - c.begin) * dims.padded;
    for (int64_t h = 0; h < dims.heads; ++h)
      row[h] *= philox(edge, static_cast<uint32_t>(h), job.seed) < limit ? C{0} : kept;
  }
}

template <typename S>
Attention<S> gat_job(const void* x, const void* a_src, const void* a_dst, const void* edge,
                     int64_t heads, int64_t width, double slope, double dropout, uint64_t seed) {
  return {Kind::gat, heads, width, static_cast<const S*>(x), static_cast<const S*>(a_src),
          static_cast<const S*>(a_dst), static_cast<const S*>(edge), nullptr,
          static_cast<Compute<S>>(slope), 1, dropout, seed};
}
template <typename S>
Attention<S> gatv2_job(const void* x_src, const void* x_dst, const void* att, const void* edge,
                       int64_t heads, int64_t width, double slope) {
  return {Kind::gatv2, heads, width, static_cast<const S*>(x_src), static_cast<const S*>(x_src),
          static_cast<const S*>(x_dst), static_cast<const S*>(edge), static_cast<const S*>(att),
          static_cast<Compute<S>>(slope), 1, 0, 0};
}
template <typename S>
Attention<S> attention_job(const void* q, const void* k, const void* v, const void* bias,
                           int64_t heads, int64_t width, double scale) {
  return {Kind::attention, heads, width, static_cast<const S*>(v), static_cast<const S*>(k),
          static_cast<const S*>(q), static_cast<const S*>(bias), nullptr, 1,
          static_cast<Compute<S>>(scale), 0, 0};
}

}  // namespace gnnlab::GNNLAB_NS
