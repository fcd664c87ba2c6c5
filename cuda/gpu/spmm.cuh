// Reads weight * x along the places of a row; for rows.cu and multi.cu.
//
//   -DDTYPE=... of x           -DI=i32|i64  type of col, perm and args
//   -DVEC=n   columns of a lane: as many as 16 bytes hold, or 1
//   -DWEIGHT=0 none, 1 one per edge, 2 one per edge and head
#pragma once
#include "rows.cuh"

typedef DTYPE T;
typedef gl_sum_type<T>::type A;

struct Source {
  const I* col;   // 0: place k reads row k
  const I* perm;  // 0: place k is edge k
  const T* x;
  i64 ld;
  const T* weight;
  i64 heads, width;  // of weight: number of heads, columns of each
};

// Calls visit(values, place) for this lane's share of places first .. last, in ascending order.
template <typename Visit>
GL_FN void each_place(const Source& s, const Columns& c, i64 first, i64 last, Visit visit) {
  const i32 parts = c.group / c.lanes;
  const i64 head = WEIGHT == 2 && c.inside ? c.first / s.width : 0;
  for (i64 base = first; base < last; base += c.group) {
    // The group reads its next indices side by side, then hands them round.
    const i64 place = base + c.lane;
    I row = 0, edge = 0;
    A weight = 1;
    if (place < last) {
      row = s.col ? s.col[place] : (I)place;
      if (WEIGHT) edge = s.perm ? s.perm[place] : (I)place;
      if (WEIGHT == 1) weight = gl_up(s.weight[edge]);
    }
    const i32 count = (i32)(last - base < c.group ? last - base : c.group);
    for (i32 start = 0; start < count; start += IN_FLIGHT * parts) {
      T held[IN_FLIGHT][VEC];
      A factor[IN_FLIGHT];
      GL_UNROLL for (i32 u = 0; u < IN_FLIGHT; u++) {
        const i32 j = start + u * parts + c.part;
        const i64 from = gl_shfl(c.mask, row, j & (c.group - 1), c.group);
        if (WEIGHT == 1) factor[u] = gl_shfl(c.mask, weight, j & (c.group - 1), c.group);
        if (WEIGHT == 2) {
          const i64 of = gl_shfl(c.mask, edge, j & (c.group - 1), c.group);
          if (j < count && c.inside) factor[u] = gl_up(s.weight[of * s.heads + head]);
        }
        if (j < count && c.inside) load_items<VEC>(s.x + from * s.ld + c.first, held[u]);
      }
      GL_UNROLL for (i32 u = 0; u < IN_FLIGHT; u++) {
        const i32 j = start + u * parts + c.part;
        if (j >= count || !c.inside) continue;
        A values[VEC];
        GL_UNROLL for (i32 i = 0; i < VEC; i++) {
          values[i] = gl_up(held[u][i]);
          if (WEIGHT) values[i] *= factor[u];
        }
        visit(values, (I)(base + j));
      }
    }
  }
}
