// Gradients of max and min from the places that won.
//
//   -DDTYPE=...  -DI=i32|i64  -DVEC=n: columns of a lane
//
// gx[j, f] = sum of weight * grad[i, f] over the places p that read row j, in ascending order, where
// arg[i, f] == p and i is the row of p. Each source row is visited by one group, so that nothing is
// added atomically. gweight[edge, h] = sum over the columns of head h of grad * x where p won.
#include "rows.cuh"

typedef DTYPE T;
typedef gl_sum_type<T>::type A;

struct ArgArgs {
  const T* grad;
  const I* arg;
  const I* rows;      // of each place
  const i64* indptr;  // of the source rows
  const I* places;    // that read each source row; 0: place k is read by k
  const I* perm;      // edge of each place, for the weight; 0: the same
  const T* weight;    // 0: none
  i64 heads, width;
  i64 columns;
  i64 num_src;
  i64 group, lanes;
  T* out;
  const i64* offsets;
  i64 num_chunks;
  A* partial;
};

struct Gradient {
  A value[VEC];
};

GL_FN Gradient add_places(const ArgArgs& a, const Columns& c, i64 first, i64 last) {
  Gradient g;
  GL_UNROLL for (i32 i = 0; i < VEC; i++) g.value[i] = 0;
  const i32 parts = c.group / c.lanes;
  for (i64 base = first; base < last; base += c.group) {
    I place = 0, row = 0, edge = 0;
    if (base + c.lane < last) {
      place = a.places ? a.places[base + c.lane] : (I)(base + c.lane);
      row = a.rows[place];
      if (a.weight) edge = a.perm ? a.perm[place] : place;
    }
    const i32 count = (i32)(last - base < c.group ? last - base : c.group);
    for (i32 start = 0; start < count; start += IN_FLIGHT * parts) {
      I won[IN_FLIGHT][VEC], from[IN_FLIGHT], to[IN_FLIGHT], of[IN_FLIGHT];
      GL_UNROLL for (i32 u = 0; u < IN_FLIGHT; u++) {
        const i32 j = start + u * parts + c.part;
        to[u] = gl_shfl(c.mask, place, j & (c.group - 1), c.group);
        from[u] = gl_shfl(c.mask, row, j & (c.group - 1), c.group);
        of[u] = gl_shfl(c.mask, edge, j & (c.group - 1), c.group);
        if (j < count && c.inside)
          load_items<VEC>(a.arg + (i64)from[u] * a.columns + c.first, won[u]);
      }
      GL_UNROLL for (i32 u = 0; u < IN_FLIGHT; u++) {
        const i32 j = start + u * parts + c.part;
        if (j >= count || !c.inside) continue;
        A factor = 1;
        if (a.weight) factor = gl_up(a.weight[(i64)of[u] * a.heads + c.first / a.width]);
        GL_UNROLL for (i32 i = 0; i < VEC; i++)
          if (won[u][i] == to[u])
            g.value[i] += factor * gl_up(a.grad[(i64)from[u] * a.columns + c.first + i]);
      }
    }
  }
  for (i32 step = c.lanes; step < c.group; step *= 2) {
    GL_UNROLL for (i32 i = 0; i < VEC; i++)
      g.value[i] += gl_shfl_xor(c.mask, g.value[i], step, c.group);
  }
  return g;
}

GL_FN void write_row(const ArgArgs& a, const Columns& c, i64 row, const Gradient& g) {
  if (!c.inside || c.part != 0) return;
  T items[VEC];
  GL_UNROLL for (i32 i = 0; i < VEC; i++) items[i] = gl_down<T>(g.value[i]);
  store_items<VEC>(a.out + row * a.columns + c.first, items);
}

GL_KERNEL(arg_whole, ArgArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 row = group_number(c);
  if (row >= a.num_src) return;
  const i64 first = a.indptr[row], last = a.indptr[row + 1];
  if (a.offsets && last - first > CHUNK) return;
  write_row(a, c, row, add_places(a, c, first, last));
}

GL_KERNEL(arg_chunk, ArgArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_src, chunk);
  if (row < 0) return;
  const i64 first = a.indptr[row] + (chunk - a.offsets[row]) * CHUNK;
  const i64 end = a.indptr[row + 1];
  const Gradient g = add_places(a, c, first, end - first < CHUNK ? end : first + CHUNK);
  if (c.inside && c.part == 0)
    store_items<VEC>(a.partial + chunk * a.columns + c.first, g.value);
}

GL_KERNEL(arg_combine, ArgArgs, 256) {
  const Columns c = columns_of(a.group, a.lanes, a.columns, VEC);
  const i64 chunk = group_number(c);
  if (chunk >= a.num_chunks) return;
  const i64 row = row_of_chunk(a.offsets, a.num_src, chunk);
  if (row < 0 || a.offsets[row] != chunk || !c.inside || c.part != 0) return;
  Gradient g;
  GL_UNROLL for (i32 i = 0; i < VEC; i++) g.value[i] = 0;
  for (i64 k = chunk; k < a.offsets[row + 1]; k++) {
    A value[VEC];
    load_items<VEC>(a.partial + k * a.columns + c.first, value);
    GL_UNROLL for (i32 i = 0; i < VEC; i++) g.value[i] += value[i];
  }
  write_row(a, c, row, g);
}

struct ArgWeightArgs {
  const T* grad;
  const I* arg;
  const I* rows;
  const I* col;   // 0: place k reads row k
  const I* perm;  // 0: place k is edge k
  const T* x;
  i64 ld;
  i64 heads, width;
  i64 num_edges;
  i64 group;
  T* out;
};

// A group for each place and head.
GL_KERNEL(arg_weight, ArgWeightArgs, 256) {
  const i32 group = (i32)a.group;
  const i64 number = gl_block() * (gl_threads() / group) + gl_thread() / group;
  if (number >= a.num_edges * a.heads) return;
  const i64 place = number / a.heads, head = number % a.heads;
  const i64 columns = a.heads * a.width;
  const i64 row = a.rows[place];
  const i64 source = a.col ? (i64)a.col[place] : place;
  A sum = 0;
  for (i64 f = head * a.width + (gl_lane() & (group - 1)); f < (head + 1) * a.width; f += group)
    if ((i64)a.arg[row * columns + f] == place)
      sum += gl_up(a.grad[row * columns + f]) * gl_up(a.x[source * a.ld + f]);
  const u32 mask = gl_group_mask(group);
  for (i32 step = group / 2; step > 0; step /= 2) sum += gl_shfl_xor(mask, sum, step, group);
  if ((gl_lane() & (group - 1)) == 0) {
    const i64 edge = a.perm ? (i64)a.perm[place] : place;
    a.out[edge * a.heads + head] = gl_down<T>(sum);
  }
}
