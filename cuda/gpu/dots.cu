// sddmm: a[i] op b[j] for the two ends of every edge, written to the caller's edge.
//
//   -DDTYPE=f32|f64|bf16|f16   type of items
//   -DI=i32|i64                type of col and perm
//   -DOP=0|1|2|3|4             dot, add, sub, mul, div
//   -DVEC, -DLANES             items read at a time (a divisor of width); lanes per head
//
// Algorithm: a group of LANES lanes per item, an item being one head of one place (the other ops
//   than the dot take a whole row as one head). Each warp takes the next 16 items per group, finds
//   the row of its first place by a 32-way search in indptr, and steps from row to row from there,
//   so that rows of any length, also one that holds all edges, are shared out evenly.
// Bytes: col, perm and indptr once, b once per edge, a once per row (its repeats hit the L1 cache),
//   and the result once. VEC items are read at a time, 16 bytes where width and addresses allow.
// Block: 128 threads; few registers and no shared memory, so the number of warps hides latency.
// Order of sums: a lane adds its columns in ascending order, then halves of the group are added;
//   it depends on the width alone.
#include "gl.cuh"

typedef DTYPE T;
typedef gl_sum_type<T>::type A;

enum Op { kDot, kAdd, kSub, kTimes, kDiv };  // as in gnnlab.h
constexpr i32 kThreads = 128;
constexpr i32 kGroups = 32 / LANES;
constexpr i32 kSteps = 16;

struct DotArgs {
  const i64* indptr;
  const I* col;
  const I* perm;
  const T* a;
  const T* b;
  T* out;
  i64 rows;
  i64 edges;
  i64 heads;
  i64 width;
};

// The row that holds `place`; the same for all lanes of the warp.
GL_FN i64 find_row(const i64* indptr, i64 rows, i64 place) {
  i64 low = 0, high = rows;  // indptr[low] <= place < indptr[high]
  while (high - low > 1) {
    const i64 step = (high - low + 31) / 32;
    const i64 probe = low + (gl_lane() + 1) * step;
    const bool below = probe < high && indptr[probe] <= place;
    const i32 count = gl_popcount(gl_ballot(GL_ALL, below));
    low += count * step;
    if (low + step < high) high = low + step;
  }
  return low;
}

// The row that holds `place`, at or after `row`: mostly near, but a desert of empty rows may lie
// between.
GL_FN i64 next_row(const i64* indptr, i64 rows, i64 row, i64 place) {
  for (i32 tries = 0; tries < 8; tries++) {
    if (place < indptr[row + 1]) return row;
    row++;
  }
  i64 high = rows;
  while (high - row > 1) {
    const i64 middle = row + (high - row) / 2;
    if (indptr[middle] <= place)
      row = middle;
    else
      high = middle;
  }
  return row;
}

GL_FN A combine(A x, A y) {
  if (OP == kAdd) return x + y;
  if (OP == kSub) return x - y;
  return OP == kTimes ? x * y : x / y;
}

GL_KERNEL(sddmm, DotArgs, kThreads) {
  const i32 part = gl_lane() % LANES;
  const i64 items = a.edges * a.heads;
  const i64 warp = gl_block() * (kThreads / 32) + gl_warp();
  const i64 first = warp * (kGroups * kSteps);
  if (first >= items) return;
  i64 item = first + gl_lane() / LANES;
  i64 place = item / a.heads;
  i64 head = item - place * a.heads;
  const i64 place_step = kGroups / a.heads, head_step = kGroups % a.heads;
  i64 row = find_row(a.indptr, a.rows, first / a.heads);
  for (i32 step = 0; step < kSteps; step++) {
    const bool mine = item < items;
    const i64 here = mine ? place : a.edges - 1;  // all lanes go along, for the shuffles
    row = next_row(a.indptr, a.rows, row, here);
    const i64 other = a.col ? (i64)a.col[here] : here;
    const i64 edge = a.perm ? (i64)a.perm[here] : here;
    const T* x = a.a + (row * a.heads + head) * a.width;
    const T* y = a.b + (other * a.heads + head) * a.width;
    if (OP == kDot) {
      A sum = 0;
      for (i64 column = part * VEC; column < a.width; column += LANES * VEC) {
        const auto u = gl_load<VEC>(x + column);
        const auto v = gl_load<VEC>(y + column);
        GL_UNROLL
        for (i32 n = 0; n < VEC; n++) sum += gl_up(u.item[n]) * gl_up(v.item[n]);
      }
      for (i32 distance = LANES / 2; distance > 0; distance /= 2)
        sum += gl_shfl_xor(GL_ALL, sum, distance);
      if (mine && part == 0) a.out[edge * a.heads + head] = gl_down<T>(sum);
    } else if (mine) {
      T* out = a.out + (edge * a.heads + head) * a.width;
      for (i64 column = part * VEC; column < a.width; column += LANES * VEC) {
        const auto u = gl_load<VEC>(x + column);
        const auto v = gl_load<VEC>(y + column);
        gl_vec<T, VEC> w;
        GL_UNROLL
        for (i32 n = 0; n < VEC; n++)
          w.item[n] = gl_down<T>(combine(gl_up(u.item[n]), gl_up(v.item[n])));
        gl_store(out + column, w);
      }
    }
    item += kGroups;
    place += place_step;
    head += head_step;
    if (head >= a.heads) {
      head -= a.heads;
      place++;
    }
  }
}
