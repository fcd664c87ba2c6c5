// Gradients of fused attention, again without an (E, H) array.
//
// Algorithm: p is recomputed from the saved largest score and total. With d = <grad, y> per row and
//   head (the identity of flash attention) the gradient of a score is p (<grad[i], v[j]> - d[i]).
//   One pass over destinations gives d and what belongs to rows and edges (a_dst, q, x_dst, edge,
//   bias, att), one over the transpose what belongs to sources (x, a_src, k, v, x_src).
// Reads twice what the forward pass reads, and the gradient's rows once an edge. Writes each result
//   once. Statistics of destinations (shift, 1 / total, d) lie side by side for the second pass.
// Order of sums: include/shapes.h, blocks of long rows in order; the gradient of att is summed over a
//   row, over the rows of a piece of 16384 steps, and over pieces: never by the number of threads.
// Measured by: gnnlab.bench.ops, rows "gat backward", "gatv2 backward", "attention backward".
#include "attention.h"
#include "families.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename S>
struct Gradients {
  S *values, *source, *target, *edge, *att;  // each may be null; values holds x_src's for GATv2
};

// Row sums and edge gradients of GATv2 in the order of destinations, and att's: added to `att_sum`.
template <typename S, typename I, class Shape>
void gatv2_target(const Attention<S>& job, const Dims& dims, const gnnlab_rows& rows, const Chunk& c,
                  const Compute<S>* gs, const Gradients<S>& to, Compute<S>* slot, Compute<S>* att_sum,
                  Compute<S>* work) {
  using C = Compute<S>;
  constexpr int L = Lanes<C>::kCount;
  const Shape shape(dims);
  const I* col = static_cast<const I*>(rows.col);
  const I* perm = static_cast<const I*>(rows.perm);
  const int64_t ld = job.row_items();
  const C slope = job.slope;
  const typename Shape::template Held<S> att(job.att);
  for (int64_t row = c.first; row < c.last; ++row) {
    const typename Shape::template Held<S> mine(job.target + row * ld);
    typename Shape::Sums total(work), att_row(work + dims.packs * L);
    total.clear(shape);
    att_row.clear(shape);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      const S* from = job.source + listed(col, k) * ld;
      const int64_t e = listed(perm, k) * ld;
      const C* weight = gs + (k - c.begin) * dims.padded;
      shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
        Lanes<C> t = mine.get(pack, at, count) + load_some(from + at, count);
        if (job.edge) t = t + load_some(job.edge + e + at, count);
        const Lanes<C> w = shape.weight(weight, pack, head);
        const Lanes<C> g = leaky_slope(t, w * att.get(pack, at, count), slope);
        total.add(pack, g);
        att_row.add(pack, w * leaky(t, slope));
        if (to.edge) store_some(to.edge + e + at, g, count);
      });
    }
    if (slot) keep_sums(shape, total, slot);
    else if (to.target)
      write_sums(shape, total, static_cast<const C*>(nullptr), to.target + row * ld);
    shape.each([&](int pack, int64_t, int, int64_t) GNNLAB_LAMBDA {
      store_lanes(att_sum + pack * L, load_lanes(att_sum + pack * L) + att_row.get(pack));
    });
  }
}

// gx_src[j] = sum of p * grad[i] + gs * att * LeakyReLU', rows being sources.
template <typename S, typename I, class Shape>
void gatv2_source(const Attention<S>& job, const Dims& dims, const gnnlab_rows& rows, const Chunk& c,
                  const S* grad, const Compute<S>* p, const Compute<S>* gs, S* out, Compute<S>* slot,
                  Compute<S>* work) {
  using C = Compute<S>;
  const Shape shape(dims);
  const I* col = static_cast<const I*>(rows.col);
  const I* perm = static_cast<const I*>(rows.perm);
  const int64_t ld = job.row_items();
  const C slope = job.slope;
  const typename Shape::template Held<S> att(job.att);
  for (int64_t row = c.first; row < c.last; ++row) {
    const typename Shape::template Held<S> mine(job.source + row * ld);
    typename Shape::Sums total(work);
    total.clear(shape);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      const int64_t other = listed(col, k) * ld, e = listed(perm, k) * ld;
      const C* weight = gs + (k - c.begin) * dims.padded;
      const C* share = p + (k - c.begin) * dims.padded;
      shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
        Lanes<C> t = mine.get(pack, at, count) + load_some(job.target + other + at, count);
        if (job.edge) t = t + load_some(job.edge + e + at, count);
        const Lanes<C> w = shape.weight(weight, pack, head) * att.get(pack, at, count);
        const Lanes<C> g = load_some(grad + other + at, count) * shape.weight(share, pack, head);
        total.add(pack, g + leaky_slope(t, w, slope));
      });
    }
    if (slot) keep_sums(shape, total, slot);
    else write_sums(shape, total, static_cast<const C*>(nullptr), out + row * ld);
  }
}

template <typename S, typename I>
struct Backward {
  using C = Compute<S>;
  static constexpr int64_t L = Lanes<C>::kCount;
  gnnlab_rows rows, rows_t;
  Attention<S> job;
  Dims dims;
  RowOps<S> ops;
  const S* grad;
  const S* out;
  const C* largest;
  const C* total;
  Gradients<S> to;
  C* nodes;  // per destination: shift, 1 / total, d, each `padded` long

  struct Buffers {
    C *s, *p, *g, *shift, *factor, *d, *work;
    Buffers(C* at, int64_t room) {
      for (C** buffer : {&s, &p, &g, &shift, &factor, &d}) {
        *buffer = at;
        at += room;
      }
      work = at;
    }
  };
  int64_t row_size() const { return dims.packs * L; }

  // shift, 1 / total and d of one destination.
  void node(int64_t row, C* stat) const {
    const int64_t heads = dims.heads, padded = dims.padded;
    const S* g = grad + row * job.row_items();
    const S* y = out + row * job.row_items();
    const bool empty = rows.indptr[row] == rows.indptr[row + 1];
    for (int64_t h = 0; h < padded; ++h) stat[h] = stat[padded + h] = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const C top = largest[row * heads + h];
      stat[h] = top == -static_cast<C>(__builtin_inf()) ? C{0} : top;
      stat[padded + h] = empty ? C{0} : 1 / total[row * heads + h];
    }
    Loose<C>(dims).dots([&](int, int64_t at, int count) GNNLAB_LAMBDA {
      return load_some(g + at, count) * load_some(y + at, count);
    }, stat + 2 * padded);
  }

  // b.p = p of the chunk's edges, from the scores in b.s; statistics by row.
  void probabilities(const Chunk& c, const Buffers& b, const C* stat) const {
    const int64_t padded = dims.padded;
    const C slope = job.outer_slope();
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows, c, row), n = row_end(rows, c, row) - begin;
      const int64_t base = (begin - c.begin) * padded;
      const C* mine = stat + (row - c.first) * 3 * padded;
      Lanes<C> shift, factor;
      along_row<C>(n, padded,
                   [&](int64_t h) GNNLAB_LAMBDA {
                     shift = periodic(mine + h, padded);
                     factor = periodic(mine + padded + h, padded);
                   },
                   [&](int64_t at, int64_t) GNNLAB_LAMBDA {
                     const Lanes<C> x = leaky(load_lanes(b.s + base + at), slope) - shift;
                     store_lanes(b.p + base + at, exp_lanes(x) * factor);
                   },
                   [](int64_t) GNNLAB_LAMBDA {});
    }
  }
  // b.d = gradients of the scores, from p, <grad, v> and d by row. Sums of a row go to `sums`.
  void score_gradients(const Chunk& c, const Buffers& b, const C* stat, S* sums, C* slot) const {
    const int64_t padded = dims.padded;
    const C slope = job.outer_slope();
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows, c, row), n = row_end(rows, c, row) - begin;
      const int64_t base = (begin - c.begin) * padded;
      const C* mine = stat + (row - c.first) * 3 * padded + 2 * padded;
      Lanes<C> d, sum;
      along_row<C>(n, padded,
                   [&](int64_t h) GNNLAB_LAMBDA {
                     d = periodic(mine + h, padded);
                     sum = same(C{0});
                   },
                   [&](int64_t at, int64_t left) GNNLAB_LAMBDA {
                     const int64_t i = base + at;
                     const Lanes<C> g = load_lanes(b.p + i) * (load_lanes(b.g + i) - d);
                     const Lanes<C> gs = leaky_slope(load_lanes(b.s + i), g, slope);
                     sum = sum + first_lanes(gs, C{0}, left);
                     store_lanes(b.d + i, gs);
                   },
                   [&](int64_t h) GNNLAB_LAMBDA { store_lanes(b.work + h, fold_sum(sum, padded)); });
      put_sums(row, b.work, sums, slot);
    }
  }
  void put_sums(int64_t row, const C* from, S* sums, C* slot) const {
    if (slot)
      for (int64_t h = 0; h < dims.padded; ++h) slot[h] = from[h];
    else if (sums)
      for (int64_t h = 0; h < dims.heads; ++h) store<S, 1>(sums + row * dims.heads + h, from[h]);
  }
  void multiply(C* data, int64_t count, C by) const {
    for (int64_t i = 0; i < count; i += L) store_lanes(data + i, load_lanes(data + i) * same(by));
  }

  void target_chunk(const Chunk& c, const Buffers& b, C* slots, C* att_sum) const {
    const int64_t padded = dims.padded, ld = job.row_items();
    const bool first = c.begin == rows.indptr[c.first];
    C* stat = c.slot < 0 ? nodes + c.first * 3 * padded : b.work + 3 * row_size() + padded + L;
    for (int64_t row = c.first; row < c.last; ++row) node(row, stat + (row - c.first) * 3 * padded);
    if (c.slot >= 0 && first)
      for (int64_t h = 0; h < 3 * padded; ++h) nodes[c.first * 3 * padded + h] = stat[h];
    if (!to.target && !to.edge && !to.att) return;
    C* slot = c.slot < 0 ? nullptr : slots + c.slot * max2(row_size(), padded);
    scores<S, I>(job, dims, ops, rows, c, false, b.s);
    probabilities(c, b, stat);
    ops.dots(dims, rows, c, grad, ld, job.values, ld, b.g, nullptr, c.begin);
    drop<S, I>(job, dims, rows, c, b.g);
    if (job.kind == Kind::gat) {
      score_gradients(c, b, stat, to.target, slot);
    } else {
      score_gradients(c, b, stat, nullptr, nullptr);
    }
    if (to.edge && job.kind != Kind::gatv2)
      deliver(static_cast<const I*>(rows.perm), b.d, c.begin, c.end, dims.heads, padded, to.edge);
    if (job.kind == Kind::attention && to.target) {
      multiply(b.d, (c.end - c.begin) * padded, job.scale);
      ops.sums(dims, rows, c, b.d, job.source, ld, nullptr, to.target, ld, slot, b.work);
    } else if (job.kind == Kind::gatv2) {
      with_shape<S, I>(dims.heads, dims.width, [&](auto tag) {
        gatv2_target<S, I, typename decltype(tag)::type>(job, dims, rows, c, b.d, to, slot, att_sum,
                                                         b.work);
      });
    }
  }

  // Brings the statistics of each edge's destination side by side.
  void collect_nodes(const Chunk& c, const Buffers& b) const {
    const I* col = static_cast<const I*>(rows_t.col);
    const int64_t padded = dims.padded;
    with_heads(padded, [&](auto h_of) GNNLAB_LAMBDA {
      constexpr int H = decltype(h_of)::value;
      const int64_t step = H ? H : padded;
      for (int64_t k = c.begin; k < c.end; ++k) {
        const C* from = nodes + one_by_one(listed(col, k)) * 3 * step;
        const int64_t at = (k - c.begin) * step;
        over_heads<C, H>(step, [&](auto n, int64_t h) GNNLAB_LAMBDA {
          constexpr int N = decltype(n)::value;
          store<C, N>(b.shift + at + h, load<C, N>(from + h));
          store<C, N>(b.factor + at + h, load<C, N>(from + step + h));
          store<C, N>(b.d + at + h, load<C, N>(from + 2 * step + h));
        });
      }
    });
  }
  // b.g = gradients of the scores from what lies side by side; sums over a source's edges.
  void edge_gradients(const Chunk& c, const Buffers& b, const C* p, S* sums, C* slot) const {
    const int64_t padded = dims.padded, n = (c.end - c.begin) * padded;
    const C slope = job.outer_slope();
    for (int64_t i = 0; i < n; i += L) {
      const Lanes<C> g = load_lanes(p + i) * (load_lanes(b.g + i) - load_lanes(b.d + i));
      store_lanes(b.g + i, leaky_slope(load_lanes(b.s + i), g, slope));
    }
    if (!sums && !slot) return;
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows_t, c, row), places = row_end(rows_t, c, row) - begin;
      const C* g = b.g + (begin - c.begin) * padded;
      Lanes<C> sum;
      along_row<C>(places, padded, [&](int64_t) GNNLAB_LAMBDA { sum = same(C{0}); },
                   [&](int64_t at, int64_t left) GNNLAB_LAMBDA {
                     sum = sum + first_lanes(load_lanes(g + at), C{0}, left);
                   },
                   [&](int64_t h) GNNLAB_LAMBDA { store_lanes(b.work + h, fold_sum(sum, padded)); });
      put_sums(row, b.work, sums, slot);
    }
  }

  void source_chunk(const Chunk& c, const Buffers& b, C* slots, C* source_slots) const {
    const int64_t padded = dims.padded, ld = job.row_items(), n = (c.end - c.begin) * padded;
    const int64_t slot_size = max2(row_size(), padded);
    C* slot = c.slot < 0 ? nullptr : slots + c.slot * slot_size;
    C* source_slot = c.slot < 0 ? nullptr : source_slots + c.slot * slot_size;
    scores<S, I>(job, dims, ops, rows_t, c, true, b.s);
    collect_nodes(c, b);
    const C slope = job.outer_slope();
    for (int64_t i = 0; i < n; i += L) {
      const Lanes<C> x = leaky(load_lanes(b.s + i), slope) - load_lanes(b.shift + i);
      store_lanes(b.p + i, exp_lanes(x) * load_lanes(b.factor + i));
    }
    C* kept = b.p;
    if (job.dropout > 0) {
      kept = b.shift;  // no longer needed
      __builtin_memcpy(kept, b.p, static_cast<size_t>(n) * sizeof(C));
      drop<S, I>(job, dims, rows_t, c, kept);
    }
    if (job.kind != Kind::gatv2 && to.values)
      ops.both(dims, rows_t, c, job.values, ld, kept, grad, ld, b.g, to.values, ld, slot, b.work);
    else ops.dots(dims, rows_t, c, job.values, ld, grad, ld, b.g, nullptr, c.begin);
    drop<S, I>(job, dims, rows_t, c, b.g);
    if (job.kind == Kind::gat) {
      edge_gradients(c, b, b.p, to.source, source_slot);
    } else {
      edge_gradients(c, b, b.p, nullptr, nullptr);
    }
    if (job.kind == Kind::attention && to.source) {
      multiply(b.g, n, job.scale);
      ops.sums(dims, rows_t, c, b.g, job.target, ld, nullptr, to.source, ld, source_slot, b.work);
    } else if (job.kind == Kind::gatv2) {
      with_shape<S, I>(dims.heads, dims.width, [&](auto tag) {
        gatv2_source<S, I, typename decltype(tag)::type>(job, dims, rows_t, c, grad, b.p, b.g,
                                                         to.values, slot, b.work);
      });
    }
  }

  // Adds the blocks' sums of one number per head.
  void add_head_sums(const gnnlab_rows& order, C* slots, S* sums) const {
    const int64_t slot_size = max2(row_size(), dims.padded);
    C* whole = nullptr;
    for_each_long(order, [&](int64_t row, int64_t slot, int64_t block, int64_t blocks) {
      C* part = slots + slot * slot_size;
      if (block == 0) whole = part;
      else
        for (int64_t h = 0; h < dims.heads; ++h) whole[h] += part[h];
      if (block + 1 == blocks) put_sums(row, whole, sums, nullptr);
    });
  }

  int team_for(const gnnlab_rows& order, int threads) const {
    return useful_threads(threads, (order.num_edges + order.num_rows) *
                                       max2<int64_t>(4 * job.row_items(), 8 * job.heads));
  }
  int64_t room(const gnnlab_rows& order) const { return chunk_room(order) * dims.padded + L; }
  int64_t work_size(const gnnlab_rows& order) const {
    return 6 * room(order) + 3 * row_size() + 5 * dims.padded + 2 * L;
  }

  int targets(int threads) const {
    const int team = team_for(rows, threads);
    constexpr int64_t kPiece = 16384;
    const int64_t parts = (rows.num_edges + rows.num_rows) / kPiece + 1;
    const int pieces = to.att ? static_cast<int>(parts) : team;
    const int64_t att_size = job.kind == Kind::gatv2 ? row_size() : 0;
    Scratch<C> work(team * work_size(rows)), att(pieces * att_size),
        slots(num_slots(rows) * max2(row_size(), dims.padded));
    if (!work.data || !att.data || !slots.data) return no_memory();
    for (int64_t i = 0; i < pieces * att_size; ++i) att.data[i] = 0;
    const bool any_long = on_pieces(rows, pieces, team, [&](int t, int piece, Cut from, Cut to_cut) {
      const Buffers b(work.data + t * work_size(rows), room(rows));
      return walk(rows, from, to_cut, job.target_edges(), [&](const Chunk& c) {
        target_chunk(c, b, slots.data, att.data + piece * att_size);
      });
    });
    if (any_long && to.target) {
      if (job.kind == Kind::gat) add_head_sums(rows, slots.data, to.target);
      else add_long_rows(rows, ops, dims, slots.data, to.target, max2(row_size(), dims.padded));
    }
    if (to.att && att_size) {
      for (int64_t piece = 1; piece < pieces; ++piece)
        for (int64_t i = 0; i < att_size; ++i) att.data[i] += att.data[piece * att_size + i];
      ops.emit(dims, att.data, nullptr, to.att);
    }
    return GNNLAB_OK;
  }

  int sources(int threads) const {
    if (!to.values && !to.source) return GNNLAB_OK;
    const int team = team_for(rows_t, threads);
    const int64_t slot_size = max2(row_size(), dims.padded);
    Scratch<C> work(team * work_size(rows_t)), slots(num_slots(rows_t) * slot_size),
        source_slots(num_slots(rows_t) * slot_size);
    if (!work.data || !slots.data || !source_slots.data) return no_memory();
    const bool any_long = on_threads(rows_t, team, [&](int t, Cut from, Cut to_cut) {
      const Buffers b(work.data + t * work_size(rows_t), room(rows_t));
      return walk(rows_t, from, to_cut, job.target_edges(),
                  [&](const Chunk& c) { source_chunk(c, b, slots.data, source_slots.data); });
    });
    if (!any_long) return GNNLAB_OK;
    if (to.values) add_long_rows(rows_t, ops, dims, slots.data, to.values, slot_size);
    if (to.source && job.kind == Kind::gat) add_head_sums(rows_t, source_slots.data, to.source);
    if (to.source && job.kind == Kind::attention)
      add_long_rows(rows_t, ops, dims, source_slots.data, to.source, slot_size);
    return GNNLAB_OK;
  }
};

template <typename S, typename I>
int backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const Attention<S>& job,
             const void* grad, const void* out, const void* largest, const void* total,
             const Gradients<S>& to, int threads) {
  using C = Compute<S>;
  if (job.heads == 0) return GNNLAB_OK;
  Dims dims = dims_of<C>(job.heads, job.width);
  const RowOps<S> ops = row_ops<S>(rows->index_bytes, &dims);
  Scratch<C> nodes(rows->num_rows * 3 * dims.padded + Lanes<C>::kCount);
  if (!nodes.data) return no_memory();
  const Backward<S, I> all{*rows, *rows_t, job, dims, ops, static_cast<const S*>(grad),
                           static_cast<const S*>(out), static_cast<const C*>(largest),
                           static_cast<const C*>(total), to, nodes.data};
  const int64_t bytes = job.row_items() * sizeof(S);
  const int64_t edge_bytes = job.kind == Kind::gatv2 ? bytes : job.heads * sizeof(S);
  if (to.values) advise_huge_pages(to.values, rows_t->num_rows * bytes);
  if (to.edge) advise_huge_pages(to.edge, rows->num_edges * edge_bytes);
  if (job.kind != Kind::gat && to.target) advise_huge_pages(to.target, rows->num_rows * bytes);
  if (to.source && job.kind == Kind::attention)
    advise_huge_pages(to.source, rows_t->num_rows * bytes);
  const int status = all.targets(threads);
  return status == GNNLAB_OK ? all.sources(threads) : status;
}

template <typename S>
Gradients<S> gradients(void* values, void* source, void* target, void* edge, void* att) {
  return {static_cast<S*>(values), static_cast<S*>(source), static_cast<S*>(target),
          static_cast<S*>(edge), static_cast<S*>(att)};
}

}  // namespace

int gat_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad, const void* out,
                 const void* x, const void* a_src, const void* a_dst, const void* edge, const void* max,
                 const void* total, int64_t heads, int64_t width, double slope, double dropout,
                 uint64_t seed, int dtype, void* gx, void* ga_src, void* ga_dst, void* gedge,
                 int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return backward<S, decltype(i)>(
        rows, rows_t, gat_job<S>(x, a_src, a_dst, edge, heads, width, slope, dropout, seed), grad, out,
        max, total, gradients<S>(gx, ga_src, ga_dst, gedge, nullptr), threads);
  });
}

int gatv2_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                   const void* out, const void* x_src, const void* x_dst, const void* att,
                   const void* edge, const void* max, const void* total, int64_t heads, int64_t width,
                   double slope, int dtype, void* gx_src, void* gx_dst, void* gatt, void* gedge,
                   int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return backward<S, decltype(i)>(rows, rows_t,
                                    gatv2_job<S>(x_src, x_dst, att, edge, heads, width, slope), grad,
                                    out, max, total,
                                    gradients<S>(gx_src, nullptr, gx_dst, gedge, gatt), threads);
  });
}

int attention_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                       const void* out, const void* q, const void* k, const void* v, const void* bias,
                       const void* max, const void* total, int64_t heads, int64_t width, double scale,
                       int dtype, void* gq, void* gk, void* gv, void* gbias, int threads) {
  return with_types(dtype, rows->index_bytes, [&](auto s, auto i) {
    using S = decltype(s);
    return backward<S, decltype(i)>(rows, rows_t,
                                    attention_job<S>(q, k, v, bias, heads, width, scale), grad, out,
                                    max, total, gradients<S>(gv, gk, gq, gbias, nullptr), threads);
  });
}

}  // namespace gnnlab::GNNLAB_NS
