// Fused attention: GAT, GATv2 and graph transformer, without an (E, H) array.
//
// Algorithm, per chunk of rows: the scores go to a buffer in the first cache, become exp(s - max)
//   there (include/row_scores.h), and weight the gathered values (include/row_ops.h); each output row
//   is divided by its total as it is written. A row of more than kBlock edges is done in blocks with
//   a largest score of their own, rescaled and added in order at the end.
// Reads 8 (M + 1) + 4 E + s E F (attention: twice) + 4 E H bytes, writes s M F + 8 M H. At F >= 64
//   the gathered rows are the time.
// Order of sums: include/shapes.h and row_scores.h, blocks in order. Dropout: Philox4x32-10 by edge.
// Measured by: gnnlab.bench.ops, rows "gat", "gatv2", "attention".
#include "attention.h"
#include "families.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename S, typename I>
struct Forward {
  using C = Compute<S>;
  static constexpr int64_t L = Lanes<C>::kCount;
  gnnlab_rows rows;
  Attention<S> job;
  Dims dims;
  RowOps<S> ops;
  S* out;
  C* largest;
  C* total;

  struct Buffers {
    C *s, *p, *top, *sum, *work;
  };

  void do_chunk(const Chunk& c, const Buffers& b, C* stats, C* sums) const {
    scores<S, I>(job, dims, ops, rows, c, false, b.s);
    softmax_rows<false>(rows, c, b.s, dims.padded, Leaky<C>{job.outer_slope()}, b.p, b.top, b.sum);
    const int64_t padded = dims.padded, heads = dims.heads;
    C* slot = nullptr;
    if (c.slot >= 0) {
      slot = sums + c.slot * dims.packs * L;
      C* mine = stats + c.slot * 2 * padded;
      for (int64_t h = 0; h < padded; ++h) mine[h] = b.top[h], mine[padded + h] = b.sum[h];
    } else {
      for (int64_t row = c.first; row < c.last; ++row) {
        C* sum = b.sum + (row - c.first) * padded;
        const C* top = b.top + (row - c.first) * padded;
        const bool empty = rows.indptr[row] == rows.indptr[row + 1];
        for (int64_t h = 0; h < heads; ++h) {
          largest[row * heads + h] = top[h];
          total[row * heads + h] = sum[h];
          sum[h] = empty ? C{0} : 1 / sum[h];
        }
      }
    }
    drop<S, I>(job, dims, rows, c, b.p);
    ops.sums(dims, rows, c, b.p, job.values, job.row_items(), b.sum, out, job.row_items(), slot,
             b.work);
  }

  void join(C* stats, C* sums) const {
    const int64_t padded = dims.padded, heads = dims.heads, size = dims.packs * L;
    const int64_t per_head = heads ? size / heads : 0;
    // Loose sums keep each head in Lanes of its own; packed heads lie side by side.
    join_statistics(rows, padded, stats, [&](int64_t slot, int64_t h, C factor) {
      if (h >= heads) return;
      C* part = sums + slot * size + h * per_head;
      for (int64_t i = 0; i < per_head; ++i) part[i] *= factor;
    });
    C* whole = nullptr;
    for_each_long(rows, [&](int64_t row, int64_t slot, int64_t block, int64_t blocks) {
      C* part = sums + slot * size;
      if (block == 0) whole = part;
      else
        for (int64_t i = 0; i < size; ++i) whole[i] += part[i];
      if (block + 1 < blocks) return;
      C* mine = stats + slot * 2 * padded;
      for (int64_t h = 0; h < heads; ++h) {
        largest[row * heads + h] = mine[h];
        total[row * heads + h] = mine[padded + h];
        mine[padded + h] = 1 / mine[padded + h];
      }
      ops.emit(dims, whole, mine + padded, out + row * job.row_items());
    });
  }

  int run(int threads) const {
    if (rows.num_rows == 0 || dims.heads == 0) return GNNLAB_OK;
    const int64_t target = job.target_edges();
    const int team = useful_threads(
        threads, (rows.num_edges + rows.num_rows) * max2<int64_t>(2 * job.row_items(), 4 * job.heads));
    const int64_t room = chunk_room(rows) * dims.padded + L, rows_room = target * dims.padded + L;
    const int64_t each = 2 * (room + rows_room) + dims.packs * L;
    Scratch<C> work(team * each), stats(num_slots(rows) * 2 * dims.padded),
        sums(num_slots(rows) * dims.packs * L);
    if (!work.data || !stats.data || !sums.data) return no_memory();
    advise_huge_pages(out, rows.num_rows * job.row_items() * sizeof(S));
    const bool any_long = on_threads(rows, team, [&](int t, Cut from, Cut to) {
      Buffers b;
      b.s = work.data + t * each;
      b.p = b.s + room;
      b.top = b.p + room;
      b.sum = b.top + rows_room;
      b.work = b.sum + rows_room;
      return walk(rows, from, to, target,
                  [&](const Chunk& c) { do_chunk(c, b, stats.data, sums.data); });
    });
    if (any_long) join(stats.data, sums.data);
    return GNNLAB_OK;
  }
};

template <typename S, typename I>
int forward(const gnnlab_rows* rows, const Attention<S>& job, void* out, void* largest, void* total,
            int threads) {
  using C = Compute<S>;
  Dims dims = dims_of<C>(job.heads, job.width);
  const RowOps<S> ops = row_ops<S>(rows->index_bytes, &dims);
  const Forward<S, I> all{*rows, job, dims, ops, static_cast<S*>(out), static_cast<C*>(largest),
                          static_cast<C*>(total)};
  return all.run(threads);
}

}  // namespace

int gat(const gnnlab_rows* rows, const void* x, const void* a_src, const void* a_dst, const void* edge,
        int64_t heads, int64_t width, double slope, double dropout, uint64_t seed, int dtype, void* out,
        void* max, void* total, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return forward<S, decltype(i)>(
        rows, gat_job<S>(x, a_src, a_dst, edge, heads, width, slope, dropout, seed), out, max, total,
        threads);
  });
}

int gatv2(const gnnlab_rows* rows, const void* x_src, const void* x_dst, const void* att,
          const void* edge, int64_t heads, int64_t width, double slope, int dtype, void* out, void* max,
          void* total, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return forward<S, decltype(i)>(rows,
                                   gatv2_job<S>(x_src, x_dst, att, edge, heads, width, slope), out,
                                   max, total, threads);
  });
}

int attention(const gnnlab_rows* rows, const void* q, const void* k, const void* v, const void* bias,
              int64_t heads, int64_t width, double scale, int dtype, void* out, void* max, void* total,
              int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return forward<S, decltype(i)>(rows, attention_job<S>(q, k, v, bias, heads, width, scale), out,
                                   max, total, threads);
  });
}

}  // namespace gnnlab::GNNLAB_NS
