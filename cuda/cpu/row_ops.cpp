// Row operations: products and weighted sums of gathered rows, per head, for a chunk of edges.
//
// Algorithm: the row's own features stay in registers; each gathered row is read once. Shapes that
//   models use are unrolled (include/shapes.h), all others take the loose form.
// Reads F s bytes an edge, mostly from the second and third cache: that is the time they take.
// Order of sums: include/shapes.h. Products are rounded before they are added (no fused
//   multiply-add), so that all instruction sets agree.
// Measured by: gnnlab.bench.ops, rows "sddmm dot", "gat" and "spmm weighted backward".
#include "row_ops.h"

namespace gnnlab::GNNLAB_NS {
namespace {

// Asks for the gathered row of an edge a few places on.
template <class Shape, typename S, typename I>
GNNLAB_ALWAYS void ask([[maybe_unused]] const S* b, [[maybe_unused]] int64_t ldb, [[maybe_unused]] const I* col,
                       [[maybe_unused]] int64_t k, [[maybe_unused]] int64_t last) {
  constexpr int64_t kBytes = Shape::kItems * static_cast<int64_t>(sizeof(S));
  if constexpr (kBytes >= 64) {
    constexpr int64_t kAhead = min2<int64_t>(24, 8192 / kBytes);
    const char* row = reinterpret_cast<const char*>(b + listed(col, min2(k + kAhead, last)) * ldb);
#pragma GCC unroll 16
    for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(row + at);
  }
}

template <typename S, typename I, class Shape>
void dots(const Dims& dims, const gnnlab_rows& rows, const Chunk& c, const S* a, int64_t lda,
          const S* b, int64_t ldb, Compute<S>* g, const void* perm, int64_t base) {
  const Shape shape(dims);
  const I* place = static_cast<const I*>(perm);
  const I* col = static_cast<const I*>(rows.col);
  for (int64_t row = c.first; row < c.last; ++row) {
    const typename Shape::template Held<S> own(a + row * lda);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      ask<Shape>(b, ldb, col, k, rows.num_edges - 1);
      const S* other = b + listed(col, k) * ldb;
      shape.dots([&](int pack, int64_t at, int count) GNNLAB_LAMBDA {
        return own.get(pack, at, count) * load_some(other + at, count);
      }, g + (listed(place, k) - base) * dims.padded);
    }
  }
}

template <typename S, typename I, class Shape>
void sums(const Dims& dims, const gnnlab_rows& rows, const Chunk& c, const Compute<S>* p, const S* b,
          int64_t ldb, const Compute<S>* factor, S* out, int64_t ldo, Compute<S>* slot,
          Compute<S>* work) {
  const Shape shape(dims);
  const I* col = static_cast<const I*>(rows.col);
  for (int64_t row = c.first; row < c.last; ++row) {
    typename Shape::Sums total(work);
    total.clear(shape);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      ask<Shape>(b, ldb, col, k, rows.num_edges - 1);
      const S* other = b + listed(col, k) * ldb;
      const Compute<S>* weight = p + (k - c.begin) * dims.padded;
      shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
        total.add(pack, load_some(other + at, count) * shape.weight(weight, pack, head));
      });
    }
    if (slot) keep_sums(shape, total, slot);
    else
      write_sums(shape, total, factor ? factor + (row - c.first) * dims.padded : nullptr, out + row * ldo);
  }
}

template <typename S, typename I, class Shape>
void both(const Dims& dims, const gnnlab_rows& rows, const Chunk& c, const S* a, int64_t lda,
          const Compute<S>* p, const S* b, int64_t ldb, Compute<S>* g, S* out, int64_t ldo,
          Compute<S>* slot, Compute<S>* work) {
  using C = Compute<S>;
  const Shape shape(dims);
  const I* col = static_cast<const I*>(rows.col);
  for (int64_t row = c.first; row < c.last; ++row) {
    const typename Shape::template Held<S> own(a + row * lda);
    typename Shape::Sums total(work);
    total.clear(shape);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      ask<Shape>(b, ldb, col, k, rows.num_edges - 1);
      const S* other = b + listed(col, k) * ldb;
      const C* weight = p + (k - c.begin) * dims.padded;
      shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
        total.add(pack, load_some(other + at, count) * shape.weight(weight, pack, head));
      });
      shape.dots([&](int pack, int64_t at, int count) GNNLAB_LAMBDA {
        return own.get(pack, at, count) * load_some(other + at, count);
      }, g + (k - c.begin) * dims.padded);
    }
    if (slot) keep_sums(shape, total, slot);
    else write_sums(shape, total, static_cast<const C*>(nullptr), out + row * ldo);
  }
}

template <typename S, class Shape>
void emit(const Dims& dims, const Compute<S>* data, const Compute<S>* factor, S* out) {
  using C = Compute<S>;
  const Shape shape(dims);
  shape.each([&](int pack, int64_t at, int count, int64_t head) GNNLAB_LAMBDA {
    Lanes<C> x = load_lanes(data + pack * Lanes<C>::kCount);
    if (factor) x = x * shape.weight(factor, pack, head);
    store_some(out + at, x, count);
  });
}

// The same for rows of one number, where vectors would be nearly empty.
template <typename S, typename I>
void single_dots(const Dims&, const gnnlab_rows& rows, const Chunk& c, const S* a, int64_t lda, const S* b,
                 int64_t ldb, Compute<S>* g, const void* perm, int64_t base) {
  const I *place = static_cast<const I*>(perm), *col = static_cast<const I*>(rows.col);
  for (int64_t row = c.first; row < c.last; ++row) {
    const Compute<S> own = item(a + row * lda);
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k)
      g[one_by_one(listed(place, k)) - base] = own * item(b + one_by_one(listed(col, k)) * ldb);
  }
}
// With g: both; without: sums alone.
template <typename S, typename I>
void single_rows(const gnnlab_rows& rows, const Chunk& c, const S* a, int64_t lda, const Compute<S>* p,
                 const S* b, int64_t ldb, const Compute<S>* factor, Compute<S>* g, S* out, int64_t ldo,
                 Compute<S>* slot) {
  const I* col = static_cast<const I*>(rows.col);
  for (int64_t row = c.first; row < c.last; ++row) {
    const Compute<S> own = g ? item(a + row * lda) : 0;
    Compute<S> total = 0;
    const int64_t end = row_end(rows, c, row);
    for (int64_t k = row_begin(rows, c, row); k < end; ++k) {
      const Compute<S> other = item(b + one_by_one(listed(col, k)) * ldb);
      total += p[k - c.begin] * other;
      if (g) g[k - c.begin] = own * other;
    }
    if (slot) store_lanes(slot, first_lanes(same(total), Compute<S>{0}, 1));
    else store<S, 1>(out + row * ldo, factor ? total * factor[row - c.first] : total);
  }
}
template <typename S, typename I>
void single_sums(const Dims&, const gnnlab_rows& rows, const Chunk& c, const Compute<S>* p, const S* b,
                 int64_t ldb, const Compute<S>* factor, S* out, int64_t ldo, Compute<S>* slot, Compute<S>*) {
  single_rows<S, I>(rows, c, nullptr, 0, p, b, ldb, factor, nullptr, out, ldo, slot);
}
template <typename S, typename I>
void single_both(const Dims&, const gnnlab_rows& rows, const Chunk& c, const S* a, int64_t lda,
                 const Compute<S>* p, const S* b, int64_t ldb, Compute<S>* g, S* out, int64_t ldo,
                 Compute<S>* slot, Compute<S>*) {
  single_rows<S, I>(rows, c, a, lda, p, b, ldb, nullptr, g, out, ldo, slot);
}

template <typename S, typename I>
RowOps<S> find(Dims* dims) {
  if (dims->heads == 1 && dims->width == 1)
    return {single_dots<S, I>, single_sums<S, I>, single_both<S, I>, emit<S, Loose<Compute<S>>>};
  return with_shape<S, I>(dims->heads, dims->width, [&](auto tag) {
    using Shape = typename decltype(tag)::type;
    dims->packs = Shape(*dims).packs();
    return RowOps<S>{dots<S, I, Shape>, sums<S, I, Shape>, both<S, I, Shape>, emit<S, Shape>};
  });
}

}  // namespace

template <typename S>
RowOps<S> row_ops(int index_bytes, Dims* dims) {
  return index_bytes == 4 ? find<S, int32_t>(dims) : find<S, int64_t>(dims);
}
template RowOps<float> row_ops<float>(int, Dims*);
template RowOps<double> row_ops<double>(int, Dims*);
template RowOps<Bf16> row_ops<Bf16>(int, Dims*);
template RowOps<F16> row_ops<F16>(int, Dims*);

}  // namespace gnnlab::GNNLAB_NS
