// Fused attention, backward: from `out`, the largest score and the total of each row. The definitions
// (-D) and the shares of lanes are told in attention.cuh.
//
// Algorithm: with d = <grad[i], out[i]> and p recomputed, the gradient of a score is
//   p * (<grad[i], value[j]> - d) (dropout multiplies the first term). by_target has a warp per
//   destination and gives d, the gradients of the query side and of the edge terms; by_source has a
//   warp per source, on the transpose, reads d and gives those of key and value; att_sum adds up
//   what the blocks of by_target left of the gradient of att. Rows of more than 1024 edges are
//   shared by the 4 warps of a block.
// Bytes: by_target reads per edge key, value, edge term, col and perm, and writes the edge's
//   gradient; by_source reads per edge query, grad, edge term, three scalars, col and perm.
// Block: 128 threads, as in attention.cu. by_target of gatv2 has at most 512 blocks whatever the
//   GPU, each taking many rows, so that the parts of att stay few and their order fixed.
// Order of sums: within a lane by place, then lanes pairwise, then warps in order, then blocks in 4
//   interleaved series; no atomics. It depends on the graph's shape, HEADS, WIDTH and VEC alone.
#include "attention.cuh"

constexpr i32 kAtOnce = kChunks * VEC <= 8 ? 2 : 1;

// What a warp adds up: over the edges of a row, and att over all its rows.
struct Sums {
  A logit;
  Part query, key, value;
};

// One edge between a target and a source.
struct Edge {
  i64 row, edge;  // the other end; the caller's number
  bool wanted;
};

GL_FN Edge edge_at(const AttentionArgs& a, i64 place, i64 end) {
  const bool wanted = place < end;
  return Edge{wanted && a.col ? (i64)a.col[place] : place,
              wanted && a.perm ? (i64)a.perm[place] : place, wanted};
}

// Sum over the edges that a warp works on side by side.
GL_FN A edge_sum(A x) {
  GL_UNROLL for (i32 d = kLanes * kHeads; d < 32; d *= 2) x += gl_shfl_xor(GL_ALL, x, d);
  return x;
}
GL_FN void edge_sum(Part& part) {
  if (kEdges > 1) GL_EACH_ITEM part.item[c][n] = edge_sum(part.item[c][n]);
}

// `with_dot`: whether <grad, out> is there already.
GL_FN void load_target(const AttentionArgs& a, const Lane& lane, i64 row, bool wanted,
                       bool with_dot, Target& t) {
  const bool used = wanted && lane.live;
  const i64 at = row * HEADS + lane.head;
  load_query(a, lane, row, wanted, t);
  t.grad = load(a.grad, lane, row, wanted);
  t.largest = used ? a.largest[at] : (A)0;
  const A total = used ? a.total[at] : (A)1;
  t.inverse = total > 0 ? 1 / total : total;  // no edges: not used; NaN stays NaN
  t.dot = used && with_dot ? a.dots[at] : (A)0;
}

// Weight of the edge's value in the sum, and the gradient of its score (for gat: before LeakyReLU).
GL_FN void pull(const AttentionArgs& a, const Lane& lane, const Target& target,
                const Source& source, const Score& s, const Edge& edge, A& weight, A& back) {
  const A product = dot(target.grad, source.value);
  weight = back = 0;
  if (!edge.wanted) return;
  const A p = gl_exp(s.value - target.largest) * target.inverse;
  const A kept = dropout(a, edge.edge, lane.head);
  weight = p * kept;
  back = p * (product * kept - target.dot);
  if (KIND == kGat && !(s.raw > 0)) back *= (A)a.factor;
}

// gatv2: gradient of an item before LeakyReLU.
GL_FN A through(const AttentionArgs& a, A back, A att, A mixed) {
  return back * att * (mixed > 0 ? (A)1 : (A)a.factor);
}

GL_FN void walk_sources(const AttentionArgs& a, const Lane& lane, const Target& target,
                        const Part& att, i64 begin, i64 end, i32 first, i32 step, Sums& sums,
                        Part& att_sum) {
  for (i64 base = begin; base < end; base += step * kAtOnce) {
    Source source[kAtOnce];
    Edge edge[kAtOnce];
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      edge[u] = edge_at(a, base + u * step + first, end);
      load_source(a, lane, edge[u].row, edge[u].wanted, source[u]);
    }
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      Score s;
      A weight, back;
      score(a, lane, target, source[u], att, edge[u].edge, edge[u].wanted, s);
      pull(a, lane, target, source[u], s, edge[u], weight, back);
      if (!edge[u].wanted) continue;
      if (KIND == kGatv2) {
        GL_EACH_ITEM {
          const A mixed = s.mixed.item[c][n];
          att_sum.item[c][n] += back * leaky(mixed, (A)a.factor);
          s.mixed.item[c][n] = through(a, back, att.item[c][n], mixed);
          sums.query.item[c][n] += s.mixed.item[c][n];
        }
        if (a.grad_edge) store(a.grad_edge, lane, edge[u].edge, s.mixed);
        continue;
      }
      if (a.grad_edge && lane.writes_scalar())
        a.grad_edge[edge[u].edge * HEADS + lane.head] = gl_down<T>(back);
      if (KIND == kGat) sums.logit += back;
      if (KIND == kDotProduct)
        GL_EACH_ITEM sums.query.item[c][n] += back * (A)a.factor * source[u].key.item[c][n];
    }
  }
}

GL_FN void walk_targets(const AttentionArgs& a, const Lane& lane, const Source& source,
                        const Part& att, i64 begin, i64 end, i32 first, i32 step, Sums& sums) {
  for (i64 base = begin; base < end; base += step * kAtOnce) {
    Target target[kAtOnce];
    Edge edge[kAtOnce];
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      edge[u] = edge_at(a, base + u * step + first, end);
      load_target(a, lane, edge[u].row, edge[u].wanted, true, target[u]);
    }
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      Score s;
      A weight, back;
      score(a, lane, target[u], source, att, edge[u].edge, edge[u].wanted, s);
      pull(a, lane, target[u], source, s, edge[u], weight, back);
      if (!edge[u].wanted) continue;
      GL_EACH_ITEM {
        sums.value.item[c][n] += weight * target[u].grad.item[c][n];
        if (KIND == kGatv2)
          sums.value.item[c][n] += through(a, back, att.item[c][n], s.mixed.item[c][n]);
        if (KIND == kDotProduct)
          sums.key.item[c][n] += back * (A)a.factor * target[u].query.item[c][n];
      }
      if (KIND == kGat) sums.logit += back;
    }
  }
}

GL_FN void write_query(const AttentionArgs& a, const Lane& lane, i64 row, const Sums& sums) {
  if (lane.edge != 0) return;
  if (KIND != kGat)
    store(a.grad_query, lane, row, sums.query);
  else if (lane.writes_scalar())
    a.grad_query[row * HEADS + lane.head] = gl_down<T>(sums.logit);
}

GL_FN void write_source(const AttentionArgs& a, const Lane& lane, i64 row, const Sums& sums) {
  if (lane.edge != 0) return;
  store(a.grad_value, lane, row, sums.value);
  if (KIND == kDotProduct) store(a.grad_key, lane, row, sums.key);
  if (KIND == kGat && lane.writes_scalar())
    a.grad_key[row * HEADS + lane.head] = gl_down<T>(sums.logit);
}

// Loads the destination and computes its d, which by_source will read.
GL_FN void begin_target(const AttentionArgs& a, const Lane& lane, i64 row, bool writes, Target& t) {
  load_target(a, lane, row, true, false, t);
  t.dot = dot(t.grad, load(a.out, lane, row));
  if (writes && lane.edge == 0 && lane.writes_scalar())
    a.dots[row * HEADS + lane.head] = t.dot;
}

GL_KERNEL(by_target, AttentionArgs, kThreads) {
  GL_SHARED(A, shared);
  const Lane lane = this_lane();
  const Part att = KIND == kGatv2 ? load(a.att, lane, 0) : zeros();
  Part att_sum = zeros();
  Target target;
  for (i64 first = gl_block() * kWarps; first < a.rows; first += gl_blocks() * kWarps) {
    const i64 row = first + gl_warp();
    if (row < a.rows) {
      const i64 begin = a.indptr[row], end = a.indptr[row + 1];
      if (end - begin <= kLong) {
        Sums sums{0, zeros(), zeros(), zeros()};
        begin_target(a, lane, row, true, target);
        walk_sources(a, lane, target, att, begin, end, lane.edge, kEdges, sums, att_sum);
        if (KIND == kGat) sums.logit = edge_sum(sums.logit);
        if (KIND != kGat) edge_sum(sums.query);
        write_query(a, lane, row, sums);
      }
    }
    const i64 past = first + kWarps < a.rows ? first + kWarps : a.rows;
    if (a.indptr[past] - a.indptr[first] <= kLong) continue;
    for (i64 r = first; r < past; r++) {
      const i64 begin = a.indptr[r], end = a.indptr[r + 1];
      if (end - begin <= kLong) continue;
      Sums sums{0, zeros(), zeros(), zeros()};
      begin_target(a, lane, r, gl_warp() == 0, target);
      walk_sources(a, lane, target, att, begin, end, gl_warp() * kEdges + lane.edge,
                   kWarps * kEdges, sums, att_sum);
      if (KIND == kGat) sums.logit = block_sum(edge_sum(sums.logit), shared);
      if (KIND != kGat) {
        edge_sum(sums.query);
        block_sum(sums.query, shared);
      }
      if (gl_warp() == 0) write_query(a, lane, r, sums);
    }
  }
  if (KIND != kGatv2) return;
  edge_sum(att_sum);
  block_sum(att_sum, shared);
  if (gl_warp() == 0 && lane.edge == 0) store(a.att_parts, lane, gl_block(), att_sum);
}

GL_FN void sum_lanes(Sums& sums) {
  edge_sum(sums.value);
  if (KIND == kGat) sums.logit = edge_sum(sums.logit);
  if (KIND == kDotProduct) edge_sum(sums.key);
}

GL_KERNEL(by_source, AttentionArgs, kThreads) {
  GL_SHARED(A, shared);
  const Lane lane = this_lane();
  const Part att = KIND == kGatv2 ? load(a.att, lane, 0) : zeros();
  Source source;
  const i64 first = gl_block() * kWarps, row = first + gl_warp();
  if (row < a.rows) {
    const i64 begin = a.indptr[row], end = a.indptr[row + 1];
    if (end - begin <= kLong) {
      Sums sums{0, zeros(), zeros(), zeros()};
      load_source(a, lane, row, true, source);
      walk_targets(a, lane, source, att, begin, end, lane.edge, kEdges, sums);
      sum_lanes(sums);
      write_source(a, lane, row, sums);
    }
  }
  const i64 past = first + kWarps < a.rows ? first + kWarps : a.rows;
  if (a.indptr[past] - a.indptr[first] <= kLong) return;
  for (i64 r = first; r < past; r++) {
    const i64 begin = a.indptr[r], end = a.indptr[r + 1];
    if (end - begin <= kLong) continue;
    Sums sums{0, zeros(), zeros(), zeros()};
    load_source(a, lane, r, true, source);
    walk_targets(a, lane, source, att, begin, end, gl_warp() * kEdges + lane.edge, kWarps * kEdges,
                 sums);
    sum_lanes(sums);
    block_sum(sums.value, shared);
    if (KIND == kGat) sums.logit = block_sum(sums.logit, shared);
    if (KIND == kDotProduct) block_sum(sums.key, shared);
    if (gl_warp() == 0) write_source(a, lane, r, sums);
  }
}

struct AttSumArgs {
  const A* parts;  // (blocks, columns)
  T* out;
  i64 blocks;
  i64 columns;
};

// 32 columns per block; each of 4 warps adds every fourth part.
GL_KERNEL(att_sum, AttSumArgs, kThreads) {
  GL_SHARED(A, shared);
  const i64 column = gl_block() * 32 + gl_lane();
  A sum = 0;
  if (column < a.columns)
    for (i64 block = gl_warp(); block < a.blocks; block += kWarps)
      sum += a.parts[block * a.columns + column];
  sum = block_sum(sum, shared);
  if (gl_warp() == 0 && column < a.columns) a.out[column] = gl_down<T>(sum);
}
