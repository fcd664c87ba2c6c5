// Backward of max and min: the gradient of every result goes to the one edge that gave it.
//
// Algorithm: threads share the feature columns out (the rows of gweight are shared out by heads, so
//   that no two threads write one item); each walks all rows in order. No atomics. Rows of few edges
//   are done a vector at a time, once per edge: 1.5 times faster at degree 6 than item by item.
// Reads 8 M F bytes (grad and arg) and, through arg, col (perm and weight, x), writes and re-writes
//   s N F of gx: the time is that of M F scattered additions.
// Order of sums: by row, whatever the number of threads. bfloat16 and float16 add in float32 scratch
//   memory and are rounded once.
// Measured by: gnnlab.bench.ops, row "spmm max backward".
#include "families.h"
#include "pages.h"
#include "parallel.h"
#include "tile.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename S>
struct ArgJob {
  const gnnlab_rows* rows;
  const S* grad;
  const void* arg;
  const S* x;
  int64_t ldx, heads, width;
  const S* weight;
  int64_t weight_heads, num_src;
  int threads;
};

template <typename I>
inline int64_t at(const void* index, int64_t k) {
  return index ? static_cast<int64_t>(static_cast<const I*>(index)[k]) : k;
}

constexpr int64_t kAhead = 2;      // rows
constexpr int64_t kFewEdges = 16;  // of a row: looking for each of them is faster than going item by item

// Asks for columns [first, last) of all sources of row i, if they are few.
template <typename I, typename C>
inline void fetch_row(const gnnlab_rows& rows, int64_t i, const C* gx, int64_t items, int64_t first, int64_t last) {
  if (rows.indptr[i + 1] - rows.indptr[i] > kFewEdges) return;
  for (int64_t k = rows.indptr[i]; k < rows.indptr[i + 1]; ++k) {
    const C* row = gx + at<I>(rows.col, k) * items;
    for (int64_t f = first; f < last; f += 64 / static_cast<int64_t>(sizeof(C))) __builtin_prefetch(row + f, 1);
  }
}

// gx[col[k], f] += grad[f] where arg[f] is k, for N columns from f on and all places k of a row.
// (Adding 0 elsewhere changes nothing: a sum that began at +0 is never -0.)
template <int N, typename S, typename I>
inline void spread(const gnnlab_rows& rows, int64_t begin, int64_t end, const S* grad, const I* arg,
                   Compute<S>* gx, int64_t items) {
  using C = Compute<S>;
  using V = Vec<C, N>;
  using P = Vec<Int<C>, N>;
  Vec<I, N> given;
  __builtin_memcpy(&given, arg, sizeof given);
  const P place = __builtin_convertvector(given, P);
  const V g = load<S, N>(grad);
  for (int64_t k = begin; k < end; ++k) {
    C* const to = gx + at<I>(rows.col, k) * items;
    const V some = place == P{} + static_cast<Int<C>>(k) ? g : V{};
    store<C, N>(to, load<C, N>(to) + some);
  }
}

// Columns [first, last), which lie in one head when each head has its own weight.
template <typename S, typename I, bool WEIGHTED>
void columns(const ArgJob<S>& job, int64_t first, int64_t last, Compute<S>* gx, Compute<S>* gweight) {
  using C = Compute<S>;
  constexpr int N = kVectorBytes / static_cast<int>(sizeof(C));
  const gnnlab_rows& rows = *job.rows;
  const int64_t items = job.heads * job.width, none = rows.num_edges;
  const I* const arg = static_cast<const I*>(job.arg);
  for (int64_t i = 0; i < rows.num_rows; ++i) {
    const int64_t begin = rows.indptr[i], end = rows.indptr[i + 1];
    if (gx) fetch_row<I>(rows, min2(i + kAhead, rows.num_rows - 1), gx, items, first, last);
    if (begin == end) continue;
    int64_t f = first;
    if constexpr (!WEIGHTED && sizeof(I) <= sizeof(C))
      if (gx && end - begin <= kFewEdges)
        for (; f + N <= last; f += N)
          spread<N>(rows, begin, end, job.grad + i * items + f, arg + i * items + f, gx + f, items);
    for (; f < last; ++f) {
      const int64_t place = static_cast<int64_t>(arg[i * items + f]);
      if (place == none) continue;
      const int64_t j = at<I>(rows.col, place);
      C g = item(job.grad + i * items + f);
      if constexpr (WEIGHTED) {
        const int64_t w = at<I>(rows.perm, place) * job.weight_heads +
                          (job.weight_heads > 1 ? f / job.width : 0);
        if (gweight) gweight[w] += g * item(job.x + j * job.ldx + f);
        g = item(job.weight + w) * g;
      }
      if (gx) gx[j * items + f] += g;
    }
  }
}

template <typename C>
void clear(C* data, int64_t count, int team) {
  if (!data) return;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
  for (int64_t i = 0; i < count; ++i) data[i] = C(0);
}

template <typename S, typename I>
int run(const ArgJob<S>& job, S* gx, S* gweight) {
  using C = Compute<S>;
  constexpr bool kRounded = sizeof(C) != sizeof(S);
  const int64_t items = job.heads * job.width;
  const int64_t num_gx = gx ? job.num_src * items : 0;
  const int64_t num_gweight = gweight ? job.rows->num_edges * job.weight_heads : 0;
  Scratch<C> scratch(kRounded ? num_gx + num_gweight : 0);
  if (!scratch.data) return no_memory();
  C* const sum = kRounded ? (gx ? scratch.data : nullptr) : reinterpret_cast<C*>(gx);
  C* const weight_sum = kRounded ? (gweight ? scratch.data + num_gx : nullptr) : reinterpret_cast<C*>(gweight);
  int team = useful_threads(job.threads, job.rows->num_rows * items);
  if (gx) advise_huge_pages(gx, num_gx * static_cast<int64_t>(sizeof(S)));
  clear(sum, num_gx, team);
  clear(weight_sum, num_gweight, team);

  // A share is a range of columns; where gweight adds over columns it must be whole heads.
  const bool by_head = gweight != nullptr;
  const int64_t units = !by_head ? items : job.weight_heads > 1 ? job.heads : 1;
  const int64_t unit = units > 0 ? items / units : 0;
  team = static_cast<int>(max2<int64_t>(1, min2<int64_t>(team, by_head ? units : units / 16)));
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1)
  for (int t = 0; t < team; ++t) {
    const int64_t first = units * t / team * unit, last = units * (t + 1) / team * unit;
    if (job.weight) columns<S, I, true>(job, first, last, sum, weight_sum);
    else columns<S, I, false>(job, first, last, sum, nullptr);
  }
  if constexpr (kRounded) {
    const int rounders = useful_threads(job.threads, num_gx + num_gweight);
#pragma omp parallel for num_threads(rounders) if (rounders > 1) schedule(static)
    for (int64_t i = 0; i < num_gx + num_gweight; ++i) {
      if (i < num_gx) store<S, 1>(gx + i, scratch.data[i]);
      else store<S, 1>(gweight + (i - num_gx), scratch.data[i]);
    }
  }
  return GNNLAB_OK;
}

}  // namespace

int reduce_arg_backward(const gnnlab_rows* rows, const void* grad, const void* arg, const void* x,
                        int64_t ldx, int64_t heads, int64_t width, const void* weight,
                        int64_t weight_heads, int64_t num_src, int dtype, void* gx, void* gweight,
                        int threads) {
  const auto go = [&](auto type) {
    using S = decltype(type);
    const ArgJob<S> job{rows, static_cast<const S*>(grad), arg, static_cast<const S*>(x), ldx, heads,
                        width, static_cast<const S*>(weight), weight ? weight_heads : 0, num_src, threads};
    S* const to = static_cast<S*>(gx);
    S* const to_weight = weight ? static_cast<S*>(gweight) : nullptr;
    return rows->index_bytes == 4 ? run<S, int32_t>(job, to, to_weight)
                                  : run<S, int64_t>(job, to, to_weight);
  };
  switch (dtype) {
    case GNNLAB_F32: return go(float{});
    case GNNLAB_F64: return go(double{});
    case GNNLAB_BF16: return go(Bf16{});
    default: return go(F16{});
  }
}

}  // namespace gnnlab::GNNLAB_NS
