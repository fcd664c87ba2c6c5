// Several reductions of one row of edges: sum, mean, max, min and standard deviation together.
//
// Algorithm: a tile of 64 bytes of columns at a time, the edges of a row once for sum, max and min;
//   for std once more for the squared deviations from the row's mean, while its rows of x are still
//   in the first-level cache. Threads get the same number of rows + edges, whole rows only.
// Reads 8 (M + 1) + 4 E (+ weights) + s E F bytes, writes s M F per result.
// Order of sums: by place, in blocks of kBlock edges that are added in order; for every number of
//   threads and every instruction set. bfloat16 and float16: float32, rounded once.
// Measured by: gnnlab.bench.ops, row "spmm multi".
#include "families.h"
#include "row_reduce.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename S>
struct Results {
  S *sum, *mean, *max, *min, *std;
};

// Square root lane by lane; the compiler makes it one instruction.
template <typename C, int N>
GNNLAB_INLINE Vec<C, N> root(Vec<C, N> v) {
  if constexpr (N == 1) {
    return std::is_same_v<C, float> ? static_cast<C>(__builtin_sqrtf(static_cast<float>(v)))
                                    : static_cast<C>(__builtin_sqrt(v));
  } else {
    C lanes[N];
    __builtin_memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < N; ++i) lanes[i] = root<C, 1>(lanes[i]);
    return bits_as<Vec<C, N>>(lanes);
  }
}

// `a` is kept when it is NaN, `b` is taken when it is NaN or larger (smaller for MIN).
template <bool MIN, typename V>
GNNLAB_INLINE V better(V a, V b) {
  const V larger = MIN ? (b < a ? b : a) : (b > a ? b : a);
  return b != b ? (a != a ? a : b) : larger;
}

template <typename S, int W, class Edges>
void multi_row(const RowJob<S>& job, const Edges& edges, const Results<S>& to, int64_t at, int64_t row) {
  using C = Compute<S>;
  constexpr int N = lanes_for(W * static_cast<int>(sizeof(C)), sizeof(C)), K = W / N;
  using V = Vec<C, N>;
  constexpr C kInf = std::numeric_limits<C>::infinity();
  const int64_t begin = job.indptr[row], end = job.indptr[row + 1];
  const int64_t to_at = row * job.heads * job.width + at;
  const S* const x = job.x + at;
  const C count = static_cast<C>(max2<int64_t>(end - begin, 1));
  const auto value = [&](int64_t e, int k) {
    V v = load<S, N>(x + edges.row(e) * job.ldx + k * N);
    if constexpr (Edges::kWeighted) v = v * edges.weight(e);
    return v;
  };
  // total[k] = sum of one(value) over the edges, in blocks.
  const auto sum_of = [&](V* total, const auto& one) {
    for (int64_t b = begin; b < end; b += kBlock) {
      V part[K] = {};
      for (int64_t e = b; e < min2(end, b + kBlock); ++e)
        for (int k = 0; k < K; ++k) part[k] += one(value(e, k), k);
      for (int k = 0; k < K; ++k) total[k] = b == begin ? part[k] : total[k] + part[k];
    }
  };
  V total[K] = {}, high[K], low[K];
  for (int k = 0; k < K; ++k) {
    high[k] = V{} - (begin == end ? C(0) : kInf);
    low[k] = V{} + (begin == end ? C(0) : kInf);
  }
  sum_of(total, [&](V v, int k) {
    high[k] = better<false>(high[k], v);
    low[k] = better<true>(low[k], v);
    return v;
  });
  for (int k = 0; k < K; ++k) {
    if (to.sum) store<S, N>(to.sum + to_at + k * N, total[k]);
    total[k] /= count;
    if (to.mean) store<S, N>(to.mean + to_at + k * N, total[k]);
    if (to.max) store<S, N>(to.max + to_at + k * N, high[k]);
    if (to.min) store<S, N>(to.min + to_at + k * N, low[k]);
  }
  if (!to.std) return;
  V squares[K] = {};
  sum_of(squares, [&](V v, int k) { return (v - total[k]) * (v - total[k]); });
  for (int k = 0; k < K; ++k) store<S, N>(to.std + to_at + k * N, root<C, N>(squares[k] / count));
}

template <typename S, class Edges>
int multi_all(const RowJob<S>& job, const Edges& edges, const Results<S>& to) {
  const int64_t items = job.heads * job.width, steps = job.num_rows + job.num_edges;
  if (job.num_rows == 0 || items == 0) return GNNLAB_OK;
  const int team = useful_threads(job.threads, steps * items);
  const auto cut = [&](int64_t t) {  // whole rows: a long row belongs to whom it begins with
    if (t == team) return job.num_rows;
    const Cut at = cut_at(job.indptr, job.num_rows, steps / team * t + steps % team * t / team);
    return at.row + (at.block > 0);
  };
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static, 1)
  for (int t = 0; t < team; ++t) {
    const int64_t last = cut(t + 1);
    for (int64_t row = cut(t); row < last; ++row)
      for (int64_t head = 0; head < job.heads; ++head) {
        const Edges mine = edges.of_head(head);
        cover<Compute<S>, 0, 1>(job.width, [&](auto w, int64_t at) {
          multi_row<S, decltype(w)::value>(job, mine, to, head * job.width + at, row);
        });
      }
  }
  return GNNLAB_OK;
}

}  // namespace

int reduce_multi(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads, int64_t width,
                 const void* weight, int64_t weight_heads, int dtype, void* sum, void* mean, void* max,
                 void* min, void* std, int threads) {
  const auto go = [&](auto type) {
    using S = decltype(type);
    RowJob<S> job{};
    job.indptr = rows->indptr, job.num_rows = rows->num_rows, job.num_edges = rows->num_edges;
    job.x = static_cast<const S*>(x), job.ldx = ldx, job.heads = heads, job.width = width;
    job.threads = threads;
    if (!weight || weight_heads == 1) job.width *= job.heads, job.heads = 1;
    const Results<S> to{static_cast<S*>(sum), static_cast<S*>(mean), static_cast<S*>(max),
                        static_cast<S*>(min), static_cast<S*>(std)};
    if (rows->col && rows->index_bytes == 4 && !weight)
      return multi_all(job, Listed<S>{static_cast<const int32_t*>(rows->col), rows->num_edges - 1}, to);
    return multi_all(job, General<S>{rows->col, rows->perm, static_cast<const S*>(weight), weight_heads,
                                     weight_heads > 1 ? 1 : 0, rows->index_bytes == 8}, to);
  };
  switch (dtype) {
    case GNNLAB_F32: return go(float{});
    case GNNLAB_F64: return go(double{});
    case GNNLAB_BF16: return go(Bf16{});
    default: return go(F16{});
  }
}

}  // namespace gnnlab::GNNLAB_NS
