// Products per edge: sddmm, and both gradients of the weighted sum in one pass.
//
// Algorithm: dot products go straight to the caller's order, of 16-bit items through a buffer
//   (include/row_ops.h). spmm_backward reads each gathered gradient once for both results.
//   The other operators of sddmm write whole rows, a op b, item by item.
// Reads 8 (M + 1) + 4 E (+ 4 E perm) + s E F + s M F bytes; writes s E H (dot) or s E F.
// Order of sums: include/shapes.h; a row of more than kBlock edges leaves a partial sum per block,
//   added in order.
// Measured by: gnnlab.bench.ops, rows "sddmm dot" and "spmm weighted backward".
#include "families.h"
#include "row_ops.h"
#include "row_scores.h"

namespace gnnlab::GNNLAB_NS {
namespace {

constexpr int64_t kChunkEdges = 512;

template <typename S, typename I>
int dot(const gnnlab_rows& rows, const S* a, int64_t lda, const S* b, int64_t ldb, int64_t heads,
        int64_t width, S* out, int threads) {
  using C = Compute<S>;
  Dims dims = dims_of<C>(heads, width);
  const RowOps<S> ops = row_ops<S>(rows.index_bytes, &dims);
  const int team =
      useful_threads(threads, (rows.num_edges + rows.num_rows) * max2<int64_t>(heads * width, 1));
  advise_huge_pages(out, rows.num_edges * heads * sizeof(S));
  if constexpr (__is_same(S, C)) {  // straight to the caller's edges
    dims.padded = heads;
    on_threads(rows, team, [&](int, Cut from, Cut to) {
      return walk(rows, from, to, kChunkEdges, [&](const Chunk& c) {
        ops.dots(dims, rows, c, a, lda, b, ldb, out, rows.perm, 0);
      });
    });
    return GNNLAB_OK;
  }
  const int64_t each = chunk_room(rows) * dims.padded + Lanes<C>::kCount;
  Scratch<C> work(team * each);
  if (!work.data) return no_memory();
  on_threads(rows, team, [&](int t, Cut from, Cut to) {
    C* g = work.data + t * each;
    return walk(rows, from, to, kChunkEdges, [&](const Chunk& c) {
      ops.dots(dims, rows, c, a, lda, b, ldb, g, nullptr, c.begin);
      deliver(static_cast<const I*>(rows.perm), g, c.begin, c.end, heads, dims.padded, out);
    });
  });
  return GNNLAB_OK;
}

template <int OP, typename C>
GNNLAB_ALWAYS Lanes<C> item_by_item(const Lanes<C>& a, const Lanes<C>& b) {
  if constexpr (OP == GNNLAB_ADD) return a + b;
  else if constexpr (OP == GNNLAB_SUB) return a - b;
  else if constexpr (OP == GNNLAB_TIMES) return a * b;
  else return a / b;
}

template <int OP, typename S, typename I>
int items(const gnnlab_rows& rows, const S* a, int64_t lda, const S* b, int64_t ldb, int64_t size,
          S* out, int threads) {
  constexpr int64_t L = Lanes<Compute<S>>::kCount;
  const int team = useful_threads(threads, (rows.num_edges + rows.num_rows) * max2<int64_t>(size, 1));
  const I* col = static_cast<const I*>(rows.col);
  const I* perm = static_cast<const I*>(rows.perm);
  advise_huge_pages(out, rows.num_edges * size * sizeof(S));
  on_threads(rows, team, [&](int, Cut from, Cut to) {
    return walk(rows, from, to, kChunkEdges, [&](const Chunk& c) {
      for (int64_t row = c.first; row < c.last; ++row) {
        const S* own = a + row * lda;
        const int64_t end = row_end(rows, c, row);
        for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
          const S* other = b + listed(col, k) * ldb;
          S* to_row = out + listed(perm, k) * size;
          int64_t f = 0;
          for (; f + L <= size; f += L)
            store_lanes(to_row + f, item_by_item<OP>(load_lanes(own + f), load_lanes(other + f)));
          if (f == size) continue;
          const int n = static_cast<int>(size - f);
          store_some(to_row + f, item_by_item<OP>(load_some(own + f, n), load_some(other + f, n)), n);
        }
      }
    });
  });
  return GNNLAB_OK;
}

template <typename S, typename I>
int sddmm_of(const gnnlab_rows& rows, const void* a_, int64_t lda, const void* b_, int64_t ldb,
             int64_t heads, int64_t width, int op, void* out_, int threads) {
  const S* a = static_cast<const S*>(a_);
  const S* b = static_cast<const S*>(b_);
  S* out = static_cast<S*>(out_);
  switch (op) {
    case GNNLAB_DOT: return dot<S, I>(rows, a, lda, b, ldb, heads, width, out, threads);
    case GNNLAB_ADD: return items<GNNLAB_ADD, S, I>(rows, a, lda, b, ldb, heads * width, out, threads);
    case GNNLAB_SUB: return items<GNNLAB_SUB, S, I>(rows, a, lda, b, ldb, heads * width, out, threads);
    case GNNLAB_TIMES:
      return items<GNNLAB_TIMES, S, I>(rows, a, lda, b, ldb, heads * width, out, threads);
    default: return items<GNNLAB_DIV, S, I>(rows, a, lda, b, ldb, heads * width, out, threads);
  }
}

template <typename S, typename I>
int spmm_backward_of(const gnnlab_rows& rows, const void* grad_, int64_t ldg, const void* x_,
                     int64_t ldx, int64_t heads, int64_t width, const void* weight_,
                     int64_t weight_heads, void* gx_, void* gweight_, int threads) {
  using C = Compute<S>;
  if (weight_heads == 1) {
    width *= heads;
    heads = 1;
  }
  const S* grad = static_cast<const S*>(grad_);
  const S* x = static_cast<const S*>(x_);
  const S* weight = static_cast<const S*>(weight_);
  S* gx = static_cast<S*>(gx_);
  S* gweight = static_cast<S*>(gweight_);
  const I* perm = static_cast<const I*>(rows.perm);
  const int64_t row_items = heads * width;
  if (!gx) return dot<S, I>(rows, x, ldx, grad, ldg, heads, width, gweight, threads);
  if (row_items == 0) {
    for (int64_t i = 0; gweight && i < rows.num_edges * heads; ++i) store<S, 1>(gweight + i, C{0});
    return GNNLAB_OK;
  }

  Dims dims = dims_of<C>(heads, width);
  const RowOps<S> ops = row_ops<S>(rows.index_bytes, &dims);
  const int team = useful_threads(threads, 2 * (rows.num_edges + rows.num_rows) * row_items);
  constexpr int64_t L = Lanes<C>::kCount;
  const int64_t room = chunk_room(rows) * dims.padded + L, each = 2 * room + dims.packs * L;
  Scratch<C> work(team * each), slots(num_slots(rows) * dims.packs * L);
  if (!work.data || !slots.data) return no_memory();
  advise_huge_pages(gx, rows.num_rows * row_items * sizeof(S));
  if (gweight) advise_huge_pages(gweight, rows.num_edges * heads * sizeof(S));
  const bool any_long = on_threads(rows, team, [&](int t, Cut from, Cut to) {
    C *p = work.data + t * each, *g = p + room, *sum = g + room;
    return walk(rows, from, to, kChunkEdges, [&](const Chunk& c) {
      C* slot = c.slot < 0 ? nullptr : slots.data + c.slot * dims.packs * L;
      if (weight) {
        collect(perm, weight, c.begin, c.end, heads, dims.padded, p);
      } else {
        for (int64_t i = 0; i < (c.end - c.begin) * dims.padded; ++i) p[i] = 1;
      }
      if (gweight) {
        ops.both(dims, rows, c, x, ldx, p, grad, ldg, g, gx, row_items, slot, sum);
        deliver(perm, g, c.begin, c.end, heads, dims.padded, gweight);
      } else {
        ops.sums(dims, rows, c, p, grad, ldg, nullptr, gx, row_items, slot, sum);
      }
    });
  });
  if (any_long) add_long_rows(rows, ops, dims, slots.data, gx, dims.packs * L);
  return GNNLAB_OK;
}

}  // namespace

int sddmm(const gnnlab_rows* rows, const void* a, int64_t lda, const void* b, int64_t ldb,
          int64_t heads, int64_t width, int op, int dtype, void* out, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    return sddmm_of<decltype(s), decltype(i)>(*rows, a, lda, b, ldb, heads, width, op, out, threads);
  });
}

int spmm_backward(const gnnlab_rows* rows, const void* grad, int64_t ldg, const void* x, int64_t ldx,
                  int64_t heads, int64_t width, const void* weight, int64_t weight_heads, int dtype,
                  void* gx, void* gweight, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    return spmm_backward_of<decltype(s), decltype(i)>(*rows, grad, ldg, x, ldx, heads, width, weight,
                                                      weight_heads, gx, gweight, threads);
  });
}

}  // namespace gnnlab::GNNLAB_NS
