// Sum, mean, max, min and standard deviation of the rows, in one kernel; the definitions of
// spmm.cuh. A result that is 0 is not written. The deviation is taken from the mean, in a second
// pass over the row (over the chunk, in a long row; chunks are joined by the formula of Chan et al.).
#include "spmm.cuh"

struct MultiArgs {
  const i64* indptr;
  const I* col;
  const I* perm;
  const T* x;
  i64 ld;
  const T* weight;
  i64 heads, width;
  i64 columns;
  i64 num_rows;
  i64 group, lanes;
  T* sum;
  T* mean;
  T* max;
  T* min;
  T* std;
  const i64* offsets;
  i64 num_chunks;
  A* partial;  // (4, num_chunks, columns): sum, max, min, squared deviations
};

struct Summary {
  A sum[VEC], max[VEC], min[VEC], squares[VEC];
};

GL_FN A larger(A a, A b) { return is_nan(a) || a > b ? a : (is_nan(b) || b >= a ? b : a); }
GL_FN A smaller(A a, A b) { return is_nan(a) || a < b ? a : (is_nan(b) || b <= a ? b : a); }

GL_FN Summary summarise(const MultiArgs& a, const Columns& c, i64 first, i64 last) {
  const Source source = {a.col, a.perm, a.x, a.ld, a.weight, a.heads, a.width};
  Summary s;
  GL_UNROLL for (i32 i = 0; i < VEC; i++) {
    s.sum[i] = s.squares[i] = 0;
    s.max[i] = (A)gl_float(0xff800000u);  // -infinity
    s.min[i] = (A)gl_float(0x7f800000u);
  }
  each_place(source, c, first, last, [&](const A* values, I) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      s.sum[i] += values[i];
      s.max[i] = larger(s.max[i], values[i]);
      s.min[i] = smaller(s.min[i], values[i]);
    }
  });
  for (i32 step = c.lanes; step < c.group; step *= 2) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      s.sum[i] += gl_shfl_xor(c.mask, s.sum[i], step, c.group);
      s.max[i] = larger(s.max[i], gl_shfl_xor(c.mask, s.max[i], step, c.group));
      s.min[i] = smaller(s.min[i], gl_shfl_xor(c.mask, s.min[i], step, c.group));
    }
  }
  if (!a.std || last == first) return s;
  each_place(source, c, first, last, [&](const A* values, I) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      const A apart = values[i] - s.sum[i] / (A)(last - first);
      s.squares[i] += apart * apart;
    }
  });
  for (i32 step = c.lanes; step < c.group; step *= 2) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++)
      s.squares[i] += gl_shfl_xor(c.mask, s.squares[i], step, c.group);
  }
  return s;
}

GL_FN void write_items(T* out, i64 at, const A* values) {
  if (!out) return;
  T items[VEC];
  GL_UNROLL for (i32 i = 0; i < VEC; i++) items[i] = gl_down<T>(values[i]);
  store_items<VEC>(out + at, items);
}

GL_FN void write_row(const MultiArgs& a, const Columns& c, i64 row, i64 degree, Summary& s) {
  if (!c.inside || c.part != 0) return;
  const i64 at = row * a.columns + c.first;
  A mean[VEC], spread[VEC];
  GL_UNROLL for (i32 i = 0; i < VEC; i++) {
    const A count = (A)(degree > 0 ? degree : 1);
    mean[i] = s.sum[i] / count;
    spread[i] = gl_sqrt(s.squares[i] / count);
    if (degree == 0) s.max[i] = s.min[i] = 0;
  }
  write_items(a.sum, at, s.sum);
  write_items(a.mean, at, mean);
  write_items(a.max, at, s.max);
  write_items(a.min, at, s.min);
  write_items(a.std, at, spread);
}

GL_KERNEL(multi_whole, MultiArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 row = group_number(c);
  if (row >= a.num_rows) return;
  const i64 first = a.indptr[row], last = a.indptr[row + 1];
  if (a.offsets && last - first > CHUNK) return;
  Summary s = summarise(a, c, first, last);
  write_row(a, c, row, last - first, s);
}

GL_KERNEL(multi_chunk, MultiArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_rows, chunk);
  if (row < 0) return;
  const i64 first = a.indptr[row] + (chunk - a.offsets[row]) * CHUNK;
  const i64 end = a.indptr[row + 1];
  const Summary s = summarise(a, c, first, end - first < CHUNK ? end : first + CHUNK);
  if (!c.inside || c.part != 0) return;
  A* const at = a.partial + chunk * a.columns + c.first;
  const i64 plane = a.num_chunks * a.columns;
  store_items<VEC>(at, s.sum);
  store_items<VEC>(at + plane, s.max);
  store_items<VEC>(at + 2 * plane, s.min);
  store_items<VEC>(at + 3 * plane, s.squares);
}

GL_KERNEL(multi_combine, MultiArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_rows, chunk);
  if (row < 0 || a.offsets[row] != chunk || !c.inside || c.part != 0) return;
  const i64 plane = a.num_chunks * a.columns;
  const i64 degree = a.indptr[row + 1] - a.indptr[row];
  Summary s;
  for (i64 k = chunk; k < a.offsets[row + 1]; k++) {
    const A* const at = a.partial + k * a.columns + c.first;
    A sum[VEC], max[VEC], min[VEC];
    load_items<VEC>(at, sum);
    load_items<VEC>(at + plane, max);
    load_items<VEC>(at + 2 * plane, min);
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      s.sum[i] = k == chunk ? sum[i] : s.sum[i] + sum[i];
      s.max[i] = k == chunk ? max[i] : larger(s.max[i], max[i]);
      s.min[i] = k == chunk ? min[i] : smaller(s.min[i], min[i]);
      s.squares[i] = 0;
    }
  }
  for (i64 k = chunk; k < a.offsets[row + 1]; k++) {
    const A* const at = a.partial + k * a.columns + c.first;
    const i64 before = (k - chunk) * CHUNK;
    const A count = (A)(degree - before < CHUNK ? degree - before : CHUNK);
    A sum[VEC], squares[VEC];
    load_items<VEC>(at, sum);
    load_items<VEC>(at + 3 * plane, squares);
    GL_UNROLL for (i32 i = 0; i < VEC; i++) {
      const A apart = sum[i] / count - s.sum[i] / (A)degree;
      s.squares[i] += squares[i] + count * apart * apart;
    }
  }
  write_row(a, c, row, degree, s);
}
