// Softmax and its gradient in the caller's order of edges, for orders that are not sorted.
//
// Algorithm: two passes over the edges, in order: one adds up what belongs to each row in a table of
//   rows, one divides by it. Tables are small and stay in cache, where going through perm would read
//   and write one number here and one there in arrays of edges, which do not.
//   No largest score is looked for: while all scores lie in [-limit, limit] (or are -inf), exp
//   neither overflows nor underflows. A score outside is noticed, and softmax.cpp starts again.
// Sums: in the caller's order, in double precision. With several threads exponentials and
//   quotients are dealt out by edge, sums by row, so that the order of additions stays the same.
#pragma once

#include "row_scores.h"

namespace gnnlab::GNNLAB_NS {

// Larger tables than this would not stay in cache.
inline constexpr int64_t kTableBytes = int64_t{16} << 20;

// out = exp(x) for n numbers; returns whether one was outside the limits.
template <typename C>
bool exp_all(const C* x, int64_t n, C* out) {
  constexpr int64_t L = Lanes<C>::kCount;
  constexpr C kLimit = sizeof(C) == 4 ? C(40) : C(300), kInfinity = static_cast<C>(__builtin_inf());
  using V = typename Lanes<C>::Vector;
  Lanes<C> far = same(C{0});
  const auto look = [&](const Lanes<C>& v) GNNLAB_LAMBDA {
    far = larger(each_vector<C>([&](int q) GNNLAB_LAMBDA {
                   const V size = v.v[q] < 0 ? -v.v[q] : v.v[q];
                   return v.v[q] == V{} - kInfinity ? V{} : size;
                 }),
                 far);
    return exp_lanes(v);
  };
  int64_t at = 0;
  for (; at + L <= n; at += L) store_lanes(out + at, look(load_lanes(x + at)));
  if (at < n) store_some(out + at, look(load_some(x + at, static_cast<int>(n - at))), static_cast<int>(n - at));
  return fold_max(far, 1).v[0][0] > kLimit;
}

// One softmax or gradient; C is float or double, R the type of row_of.
template <typename C, typename R>
struct ByEdge {
  static constexpr int64_t kStep = 1024;  // edges in one go: 4 KB a head
  const gnnlab_rows& rows;
  const R* row_of;
  const C* src;   // scores, or the result y in the backward direction
  const C* grad;  // of the result; null in the forward direction
  C* out;
  int64_t heads;
  bool log_kind;  // backward only
  double* sums;   // (num_rows, heads)
  C* totals;      // the same, rounded

  // sums[row] += exp(x), y * grad, or grad, for those of the edges whose row is in [low, high).
  template <int H>
  GNNLAB_ALWAYS void add(int64_t begin, int64_t end, int64_t low, int64_t high) const {
    const C *a = grad ? src : out, *b = grad;
    const bool product = grad && !log_kind;
    if (log_kind) a = grad;
    const uint64_t range = static_cast<uint64_t>(high - low);
    for (int64_t e = begin; e < end; ++e) {
      const int64_t row = static_cast<int64_t>(row_of[e]);
      if (static_cast<uint64_t>(row - low) >= range) continue;
      double* sum = sums + row * (H ? H : heads);
      const int64_t at = e * (H ? H : heads);
      over_heads<double, H>(heads, [&](auto n, int64_t h) GNNLAB_LAMBDA {
        constexpr int N = decltype(n)::value;
        auto term = load<C, N>(a + at + h);
        if (product) term = term * load<C, N>(b + at + h);
        if constexpr (N == 1) sum[h] += term;
        else store<double, N>(sum + h, load<double, N>(sum + h) + __builtin_convertvector(term, Vec<double, N>));
      });
    }
  }
  void add_up(int64_t begin, int64_t end, int64_t low, int64_t high) const {
    with_heads(heads, [&](auto h) { add<decltype(h)::value>(begin, end, low, high); });
  }

  // The second pass.
  template <int H>
  void finish(int64_t begin, int64_t end) const {
    constexpr int64_t L = Lanes<C>::kCount;
    if constexpr (H == 1) {
      C total[kStep + L];
      for (int64_t at = begin; at < end; at += kStep) {
        const int64_t count = min2(kStep, end - at);
        for (int64_t k = 0; k < count; ++k) total[k] = totals[one_by_one(static_cast<int64_t>(row_of[at + k]))];
        for (int64_t k = 0; k < count; k += L) {
          const int n = static_cast<int>(min2(L, count - k));
          finish_lanes(at + k, load_lanes(total + k), n);
        }
      }
    } else {
      for (int64_t e = begin; e < end; ++e) {
        const C* total = totals + static_cast<int64_t>(row_of[e]) * (H ? H : heads);
        const int64_t at = e * (H ? H : heads);
        over_heads<C, H>(heads, [&](auto n, int64_t h) GNNLAB_LAMBDA {
          constexpr int N = decltype(n)::value;
          const auto t = load<C, N>(total + h);
          if (!grad) return store<C, N>(out + at + h, load<C, N>(out + at + h) / t);
          const auto y = load<C, N>(src + at + h), g = load<C, N>(grad + at + h);
          if (!log_kind) return store<C, N>(out + at + h, y * (g - t));
          store<C, N>(out + at + h, g - exp_of<N>(y) * t);
        });
      }
    }
  }
  // exp of N numbers, fewer than a vector holds perhaps: in the first lanes of one.
  template <int N>
  static GNNLAB_ALWAYS Vec<C, N> exp_of(Vec<C, N> y) {
    constexpr int M = Lanes<C>::kNative;
    if constexpr (N >= M) {
      return exp_vector<N>(y);
    } else {
      Vec<C, M> wide{};
      __builtin_memcpy(&wide, &y, sizeof y);
      wide = exp_vector<M>(wide);
      __builtin_memcpy(&y, &wide, sizeof y);
      return y;
    }
  }
  GNNLAB_ALWAYS void finish_lanes(int64_t at, const Lanes<C>& total, int n) const {
    if (!grad) return store_some(out + at, load_some(out + at, n) / total, n);
    const Lanes<C> y = load_some(src + at, n), g = load_some(grad + at, n);
    store_some(out + at, log_kind ? g - exp_lanes(y) * total : y * (g - total), n);
  }
  void divide(int64_t begin, int64_t end) const {
    with_heads(heads, [&](auto h) { finish<decltype(h)::value>(begin, end); });
  }

  // Returns whether a score was outside the limits: out then holds nothing of use.
  bool run(int team) const {
    bool wild = false;
#pragma omp parallel num_threads(team) if (team > 1) reduction(|| : wild)
    {
      const int64_t crew = team_size(), me = team_rank(), count = rows.num_edges;
      const int64_t begin = count * me / crew, end = count * (me + 1) / crew;
      const int64_t low = first_row(me, crew), high = first_row(me + 1, crew);
      for (int64_t i = low * heads; i < high * heads; ++i) sums[i] = 0;
      if (crew > 1) {
        if (!grad) wild = exp_all(src + begin * heads, (end - begin) * heads, out + begin * heads);
#pragma omp barrier
        add_up(0, count, low, high);
      } else {
        for (int64_t at = 0; at < count; at += kStep) {
          const int64_t stop = min2(at + kStep, count);
          if (!grad) wild |= exp_all(src + at * heads, (stop - at) * heads, out + at * heads);
          add_up(at, stop, 0, rows.num_rows);
        }
      }
      for (int64_t i = low * heads; i < high * heads; ++i) totals[i] = static_cast<C>(sums[i]);
#pragma omp barrier
      divide(begin, end);
    }
    return wild;
  }
  // Where thread t's rows begin, so that all have about as many edges.
  int64_t first_row(int64_t t, int64_t crew) const {
    const int64_t edge = rows.num_edges * t / crew;
    if (t == crew) return rows.num_rows;
    int64_t low = 0, high = rows.num_rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rows.indptr[middle] < edge) low = middle + 1; else high = middle;
    }
    return low;
  }
};

// Whether edges should be visited in the caller's order, a matter of sizes alone.
template <typename C>
bool by_edge_pays(const gnnlab_rows& rows, const void* row_of, int64_t heads) {
  return row_of && rows.perm && rows.num_rows <= rows.num_edges &&
         rows.num_rows * heads * static_cast<int64_t>(sizeof(double)) <= kTableBytes;
}

// Does all of it; `done` says whether the result is of use.
template <typename C, typename R>
int by_edge(const gnnlab_rows& rows, const void* row_of, const C* src, const C* grad, int64_t heads,
            bool log_kind, C* out, int threads, bool* done) {
  const int team = useful_threads(threads, 4 * rows.num_edges * heads);
  advise_huge_pages(out, rows.num_edges * heads * static_cast<int64_t>(sizeof(C)));
  Scratch<double> sums(rows.num_rows * heads);
  Scratch<C> totals(rows.num_rows * heads);
  if (!sums.data || !totals.data) return no_memory();
  const ByEdge<C, R> job{rows, static_cast<const R*>(row_of), src, grad, out, heads, log_kind, sums.data, totals.data};
  *done = !job.run(team);
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
