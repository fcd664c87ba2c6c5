// out[i] = reduction of weight[perm[k]] * x[col[k]] over the places k of row i.
//
//   -DREDUCE=0 sum, 1 mean, 2 max, 3 min, 4 mul;  -DARG=1: also the place that won
//   and what spmm.cuh takes.
//
// rows_whole reduces rows of up to CHUNK edges (all rows, where `offsets` is 0). Longer ones go
// through rows_chunk, one partial result per chunk, and rows_combine, which joins them in order.
#include "spmm.cuh"

struct RowsArgs {
  const i64* indptr;
  const I* col;
  const I* perm;
  const T* x;
  i64 ld;
  const T* weight;
  i64 heads, width;
  i64 columns;
  i64 num_rows, num_edges;
  i64 group, lanes;
  T* out;
  I* arg;
  const i64* offsets;  // of each row's chunks; num_rows + 1
  i64 num_chunks;      // at least offsets[num_rows]
  A* partial;          // (num_chunks, columns)
  I* partial_arg;
};

GL_FN A neutral() {
  if (REDUCE == 4) return 1;
  return 0;
}

// Whether `a` beats `b`: by value, NaN before all else. Equals do not beat each other.
GL_FN bool beats(A a, A b) {
  if (is_nan(a) || is_nan(b)) return is_nan(a) && !is_nan(b);
  return REDUCE == 2 ? a > b : a < b;
}

// What is known of VEC columns. `place` is num_edges before the first edge.
struct Result {
  A value[VEC];
  I place[VEC];
};

GL_FN Result nothing(const RowsArgs& a) {
  Result r;
  GL_UNROLL for (i32 i = 0; i < VEC; i++) {
    r.value[i] = neutral();
    r.place[i] = (I)a.num_edges;
  }
  return r;
}

// Takes in another value; among equals the lower place stays.
GL_FN void take(const RowsArgs& a, Result& r, i32 i, A value, I place) {
  if (REDUCE == 4) r.value[i] *= value;
  if (REDUCE <= 1) r.value[i] += value;
  if (REDUCE == 2 || REDUCE == 3) {
    const I none = (I)a.num_edges;
    if (place == none) return;
    const bool first = r.place[i] == none;
    if (first || beats(value, r.value[i]) || (place < r.place[i] && !beats(r.value[i], value))) {
      r.value[i] = value;
      r.place[i] = place;
    }
  }
}

GL_FN Result reduce_places(const RowsArgs& a, const Columns& c, i64 first, i64 last) {
  const Source source = {a.col, a.perm, a.x, a.ld, a.weight, a.heads, a.width};
  Result r = nothing(a);
  each_place(source, c, first, last, [&](const A* values, I place) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++) take(a, r, i, values[i], place);
  });
  for (i32 step = c.lanes; step < c.group; step *= 2) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      const A value = gl_shfl_xor(c.mask, r.value[i], step, c.group);
      const I place = REDUCE == 2 || REDUCE == 3
                          ? gl_shfl_xor(c.mask, r.place[i], step, c.group)
                          : r.place[i];
      take(a, r, i, value, place);
    }
  }
  return r;
}

GL_FN void write_row(const RowsArgs& a, const Columns& c, i64 row, i64 degree, const Result& r) {
  if (!c.inside || c.part != 0) return;
  T items[VEC];
  GL_UNROLL for (i32 i = 0; i < VEC; i++) {
    A value = r.value[i];
    if (REDUCE == 1) value /= (A)(degree > 0 ? degree : 1);
    items[i] = gl_down<T>(value);
  }
  store_items<VEC>(a.out + row * a.columns + c.first, items);
  if (ARG) store_items<VEC>(a.arg + row * a.columns + c.first, r.place);
}

GL_KERNEL(rows_whole, RowsArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 row = group_number(c);
  if (row >= a.num_rows) return;
  const i64 first = a.indptr[row], last = a.indptr[row + 1];
  if (a.offsets && last - first > CHUNK) return;
  write_row(a, c, row, last - first, reduce_places(a, c, first, last));
}

GL_KERNEL(rows_chunk, RowsArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_rows, chunk);
  if (row < 0) return;
  const i64 first = a.indptr[row] + (chunk - a.offsets[row]) * CHUNK;
  const i64 end = a.indptr[row + 1];
  const i64 last = end - first < CHUNK ? end : first + CHUNK;
  const Result r = reduce_places(a, c, first, last);
  if (!c.inside || c.part != 0) return;
  store_items<VEC>(a.partial + chunk * a.columns + c.first, r.value);
  if (ARG) store_items<VEC>(a.partial_arg + chunk * a.columns + c.first, r.place);
}

GL_KERNEL(rows_combine, RowsArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_rows, chunk);
  if (row < 0 || a.offsets[row] != chunk || !c.inside || c.part != 0) return;
  Result r = nothing(a);
  for (i64 k = chunk; k < a.offsets[row + 1]; k++) {
    A value[VEC];
    I place[VEC];
    load_items<VEC>(a.partial + k * a.columns + c.first, value);
    // Without args, chunks stand for places: only their order matters.
    if (ARG) load_items<VEC>(a.partial_arg + k * a.columns + c.first, place);
    GL_UNROLL for (i32 i = 0; i < VEC; i++)
      take(a, r, i, value[i], ARG ? place[i] : (I)(k - chunk));
  }
  write_row(a, c, row, a.indptr[row + 1] - a.indptr[row], r);
}
