// Fused attention, forward: y[i, h] = sum of p * v over the edges of row i, p the softmax of scores.
// The definitions (-D) and the shares of lanes are told in attention.cuh.
//
// Algorithm: a warp per row and group of heads, 4 rows per block. It goes once over the edges, a few
//   at a time (all loads before all arithmetic), and keeps the largest score, the sum of
//   exponentials and the weighted sum up to date (online softmax), so that scores are never stored.
//   Lanes that took different edges are merged at the end. A row of more than 1024 edges is walked
//   by all 4 warps of its block and merged through shared memory.
// Bytes: each edge's key and value row, edge term, col and perm once; indptr, queries, result,
//   largest and total once per row.
// Block: 128 threads, since registers (several value rows a lane) bound the number of warps, and a
//   block lasts as long as its longest row. Load balance ends there: a row of a million edges
//   occupies 4 warps.
// Order of sums: within a lane by place, then lanes pairwise, then warps in order; it depends on the
//   row's length, HEADS, WIDTH and VEC alone.
#include "attention.cuh"

constexpr i32 kAtOnce = kChunks * VEC <= 8 ? 4 : (kChunks * VEC <= 16 ? 2 : 1);

struct State {
  A largest, total;
  Part sum;
};

GL_FN A lowest() { return -(A)gl_float(0x7f800000u); }

// exp(x - largest), with 1 for two equal infinities.
GL_FN A relative(A x, A largest) { return x == largest ? (A)1 : gl_exp(x - largest); }

// Changes what the exponentials are relative to.
GL_FN void rescale(State& state, A largest) {
  const A by = relative(state.largest, largest);
  state.largest = largest;
  state.total *= by;
  GL_EACH_ITEM state.sum.item[c][n] *= by;
}

// Goes over places begin + first, begin + first + step, ...
GL_FN void walk(const AttentionArgs& a, const Lane& lane, const Target& target, const Part& att,
                i64 begin, i64 end, i32 first, i32 step, State& state) {
  for (i64 base = begin; base < end; base += step * kAtOnce) {
    Source source[kAtOnce];
    Score scores[kAtOnce];
    i64 edge[kAtOnce];
    bool wanted[kAtOnce];
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      const i64 place = base + u * step + first;
      wanted[u] = place < end;
      const i64 row = wanted[u] && a.col ? (i64)a.col[place] : place;
      edge[u] = wanted[u] && a.perm ? (i64)a.perm[place] : place;
      load_source(a, lane, row, wanted[u], source[u]);
    }
    A largest = state.largest;
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      score(a, lane, target, source[u], att, edge[u], wanted[u], scores[u]);
      if (wanted[u] && scores[u].value > largest) largest = scores[u].value;
    }
    rescale(state, largest);
    GL_UNROLL
    for (i32 u = 0; u < kAtOnce; u++) {
      if (!wanted[u]) continue;
      const A weight = relative(scores[u].value, largest);
      state.total += weight;
      const A kept = weight * dropout(a, edge[u], lane.head);
      GL_EACH_ITEM state.sum.item[c][n] += kept * source[u].value.item[c][n];
    }
  }
}

GL_FN void merge_lanes(State& state) {
  GL_UNROLL
  for (i32 d = kLanes * kHeads; d < 32; d *= 2) {
    const A other = gl_shfl_xor(GL_ALL, state.largest, d);
    rescale(state, other > state.largest ? other : state.largest);
    state.total += gl_shfl_xor(GL_ALL, state.total, d);
    GL_EACH_ITEM state.sum.item[c][n] += gl_shfl_xor(GL_ALL, state.sum.item[c][n], d);
  }
}

GL_FN void merge_warps(State& state, A* shared) {
  gl_syncthreads();
  shared[gl_thread()] = state.largest;
  gl_syncthreads();
  A largest = shared[gl_lane()];
  for (i32 warp = 1; warp < kWarps; warp++) {
    const A other = shared[warp * 32 + gl_lane()];
    if (other > largest) largest = other;
  }
  rescale(state, largest);
  state.total = block_sum(state.total, shared);
  block_sum(state.sum, shared);
}

GL_FN void write(const AttentionArgs& a, const Lane& lane, i64 row, bool empty, State& state) {
  // An infinite largest score has no softmax: NaN, as exp(x - x) is.
  const A by = empty ? (A)0 : gl_exp(state.largest - state.largest) / state.total;
  GL_EACH_ITEM state.sum.item[c][n] *= by;
  if (lane.edge != 0) return;
  store(a.out, lane, row, state.sum);
  if (!lane.writes_scalar()) return;
  a.largest[row * HEADS + lane.head] = empty ? (A)0 : state.largest;
  a.total[row * HEADS + lane.head] = state.total;
}

GL_KERNEL(attention, AttentionArgs, kThreads) {
  GL_SHARED(A, shared);
  const Lane lane = this_lane();
  const i64 first_row = gl_block() * kWarps;
  const Part att = KIND == kGatv2 ? load(a.att, lane, 0) : zeros();
  Target target;

  const i64 row = first_row + gl_warp();
  if (row < a.rows) {
    const i64 begin = a.indptr[row], end = a.indptr[row + 1];
    if (end - begin <= kLong) {
      State state{lowest(), 0, zeros()};
      load_query(a, lane, row, true, target);
      walk(a, lane, target, att, begin, end, lane.edge, kEdges, state);
      merge_lanes(state);
      write(a, lane, row, begin == end, state);
    }
  }

  const i64 past = first_row + kWarps < a.rows ? first_row + kWarps : a.rows;
  if (a.indptr[past] - a.indptr[first_row] <= kLong) return;
  for (i64 r = first_row; r < past; r++) {
    const i64 begin = a.indptr[r], end = a.indptr[r + 1];
    if (end - begin <= kLong) continue;
    State state{lowest(), 0, zeros()};
    load_query(a, lane, r, true, target);
    walk(a, lane, target, att, begin, end, gl_warp() * kEdges + lane.edge, kThreads / 32 * kEdges,
         state);
    merge_lanes(state);
    merge_warps(state, shared);
    if (gl_warp() == 0) write(a, lane, r, false, state);
  }
}
