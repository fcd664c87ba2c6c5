// The three loops over gathered rows that the edge kernels are made of, compiled in cpu/row_ops.cpp.
#pragma once

#include "chunks.h"
#include "shapes.h"

namespace gnnlab::GNNLAB_NS {

template <typename S>
struct RowOps {
  using C = Compute<S>;
  // g[perm[k] - base, h] = <a[row, h, :], b[col[k], h, :]>, `padded` numbers a row; perm may be null.
  void (*dots)(const Dims&, const gnnlab_rows&, const Chunk&, const S* a, int64_t lda, const S* b,
               int64_t ldb, C* g, const void* perm, int64_t base);
  // out[row] = factor[row, h] * sum of p[k, h] * b[col[k]]; for a block the sum goes to `slot`.
  // factor counts rows from the chunk's first; NULL: 1. `work` holds one row of sums.
  void (*sums)(const Dims&, const gnnlab_rows&, const Chunk&, const C* p, const S* b, int64_t ldb,
               const C* factor, S* out, int64_t ldo, C* slot, C* work);
  // Both from one reading of b.
  void (*both)(const Dims&, const gnnlab_rows&, const Chunk&, const S* a, int64_t lda, const C* p,
               const S* b, int64_t ldb, C* g, S* out, int64_t ldo, C* slot, C* work);
  // out = factor * sums, for a long row.
  void (*emit)(const Dims&, const C* sums, const C* factor, S* out);
};

// The loops for rows of heads x width; dims.packs becomes what their sums need.
template <typename S>
RowOps<S> row_ops(int index_bytes, Dims* dims);

// out = factor * sums
template <class Shape, typename S, typename C>
GNNLAB_ALWAYS void write_sums(const Shape& shape, const typename Shape::Sums& sums, const C* factor,
                              S* out) {
  shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
    Lanes<C> x = sums.get(pack);
    if (factor) x = x * shape.weight(factor, pack, head);
    store_some(out + at, x, count);
  });
}
// Keeps the sums of a block in its slot.
template <class Shape, typename C>
GNNLAB_ALWAYS void keep_sums(const Shape& shape, const typename Shape::Sums& sums, C* slot) {
  shape.each([&](int pack, int64_t, int, int64_t) GNNLAB_LAMBDA {
    store_lanes(slot + pack * Lanes<C>::kCount, sums.get(pack));
  });
}

// out[row] = the sum of its blocks' slots, in order, for every row of more than kBlock edges.
template <typename S, typename C = Compute<S>>
void add_long_rows(const gnnlab_rows& rows, const RowOps<S>& ops, const Dims& dims, C* slots, S* out,
                   int64_t slot_size) {
  const int64_t size = dims.packs * Lanes<C>::kCount;
  C* sum = nullptr;
  for_each_long(rows, [&](int64_t row, int64_t slot, int64_t block, int64_t blocks) {
    C* part = slots + slot * slot_size;
    if (block == 0) sum = part;
    else
      for (int64_t i = 0; i < size; ++i) sum[i] += part[i];
    if (block + 1 == blocks) ops.emit(dims, sum, nullptr, out + row * dims.heads * dims.width);
  });
}

}  // namespace gnnlab::GNNLAB_NS
