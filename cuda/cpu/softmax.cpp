// Softmax over the edges of each row, log-softmax, logsumexp, and the gradients of the first two.
//
// Algorithm: scores of a chunk of rows are collected through perm into a buffer in the first cache,
//   rows are worked on there in whole vectors (include/row_scores.h: up to 16 lanes a row in one go,
//   all heads together), results are delivered through perm. A row of more than kBlock edges is done
//   in blocks that are joined by their largest score and total, and visited a second time.
// Reads 8 (M + 1) + 4 E perm + s E H bytes (twice for long rows), writes s E H. Through perm both
//   are irregular, which is most of the time; the exponentials overlap with it.
//   Where the order is not sorted, softmax and both gradients visit edges as the caller gave them
//   instead, with sums per row in a table: include/by_edge.h, two to three times faster.
// Order of sums: include/row_scores.h, blocks in order. exp: include/lanes.h.
// Measured by: gnnlab.bench.ops, rows "edge softmax".
#include "by_edge.h"
#include "families.h"

namespace gnnlab::GNNLAB_NS {
namespace {

constexpr int64_t kChunkItems = 2048;  // numbers in a buffer: 8 or 16 KB

template <typename C>
C log_of(C x) { return static_cast<C>(__builtin_log(static_cast<double>(x))); }

template <typename S, typename I>
struct Softmax {
  using C = Compute<S>;
  static constexpr int64_t L = Lanes<C>::kCount;
  gnnlab_rows rows;
  const S* src;
  const S* grad;  // of the result; null in the forward direction
  S* out;
  int64_t heads, padded, target;
  int kind;

  const I* perm() const { return static_cast<const I*>(rows.perm); }
  int64_t room() const { return chunk_room(rows) * padded + L; }
  int64_t rows_room() const { return target * padded + L; }

  // The numbers of a chunk, without a copy where the array itself will do.
  const C* numbers(const Chunk& c, const S* array, C* buffer) const {
    if constexpr (__is_same(S, C))
      if (!rows.perm && padded == heads && c.end * heads + L <= rows.num_edges * heads)
        return array + c.begin * heads;
    collect(perm(), array, c.begin, c.end, heads, padded, buffer);
    return buffer;
  }
  void finish(const Chunk& c, const C* buffer) const {
    deliver(perm(), buffer, c.begin, c.end, heads, padded, out);
  }

  // p = s - largest - log(total) of one row.
  void log_row(const C* s, int64_t n, const C* top, const C* sum, C* p) const {
    C log_total[64 / sizeof(C)];
    Lanes<C> shift, log_sum;
    along_row<C>(n, padded,
                 [&](int64_t h) GNNLAB_LAMBDA {
                   const int64_t some = min2(L, padded);
                   for (int64_t i = 0; i < some; ++i) log_total[i] = log_of(sum[h + i]);
                   shift = periodic(top + h, padded);
                   log_sum = periodic(log_total, some);
                 },
                 [&](int64_t at, int64_t) GNNLAB_LAMBDA {
                   store_lanes(p + at, load_lanes(s + at) - shift - log_sum);
                 },
                 [](int64_t) GNNLAB_LAMBDA {});
  }
  // p = exp(s - largest) / total of one row.
  void scale_row(const C* s, int64_t n, const C* top, const C* sum, C* p) const {
    Lanes<C> shift, factor;
    along_row<C>(n, padded,
                 [&](int64_t h) GNNLAB_LAMBDA {
                   shift = shift_of(periodic(top + h, padded));
                   factor = same(C{1}) / periodic(sum + h, padded);
                 },
                 [&](int64_t at, int64_t) GNNLAB_LAMBDA {
                   store_lanes(p + at, exp_lanes(load_lanes(s + at) - shift) * factor);
                 },
                 [](int64_t) GNNLAB_LAMBDA {});
  }
  // largest + log(total); s is looked at again only when an infinity is the largest.
  void log_sum_row(const C* s, int64_t n, const C* top, const C* sum, S* result) const {
    const C infinity = static_cast<C>(__builtin_inf());
    for (int64_t h = 0; h < heads; ++h) {
      C value = n == 0 ? -infinity : top[h] + log_of(sum[h]);
      if (n > 0 && (top[h] == infinity || top[h] == -infinity)) {
        value = top[h];
        for (int64_t k = 0; k < n; ++k)
          if (s[k * padded + h] != s[k * padded + h]) value = s[k * padded + h];
      }
      store<S, 1>(result + h, value);
    }
  }

  void forward(const Chunk& c, C* in, C* p, C* top, C* sum, C* stats) const {
    const C* s = numbers(c, src, in);
    if (kind == GNNLAB_SOFTMAX && c.slot < 0) {
      softmax_rows<true>(rows, c, s, padded, AsIs{}, p, top, sum);
      return finish(c, p);
    }
    softmax_rows<false>(rows, c, s, padded, AsIs{}, p, top, sum);
    if (c.slot >= 0) {
      C* slot = stats + c.slot * 2 * padded;
      for (int64_t h = 0; h < padded; ++h) slot[h] = top[h], slot[padded + h] = sum[h];
      return;
    }
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows, c, row), n = row_end(rows, c, row) - begin;
      const int64_t at = (begin - c.begin) * padded, r = (row - c.first) * padded;
      if (kind == GNNLAB_LOGSUMEXP) log_sum_row(s + at, n, top + r, sum + r, out + row * heads);
      else if (n > 0) log_row(s + at, n, top + r, sum + r, p + at);
    }
    if (kind != GNNLAB_LOGSUMEXP) finish(c, p);
  }
  void forward_again(const Chunk& c, C* in, C* p, const C* stats) const {
    const C* s = numbers(c, src, in);
    const C* slot = stats + c.slot * 2 * padded;
    if (kind == GNNLAB_SOFTMAX) scale_row(s, c.end - c.begin, slot, slot + padded, p);
    else log_row(s, c.end - c.begin, slot, slot + padded, p);
    finish(c, p);
  }

  // sum[h] = the sum that the gradient of a row needs.
  GNNLAB_ALWAYS void backward_sum(const C* y, const C* g, int64_t n, C* sum) const {
    Lanes<C> total;
    const bool log_kind = kind == GNNLAB_LOG_SOFTMAX;
    along_row<C>(n, padded, [&](int64_t) GNNLAB_LAMBDA { total = same(C{0}); },
                 [&](int64_t at, int64_t left) GNNLAB_LAMBDA {
                   Lanes<C> term = load_lanes(g + at);
                   if (!log_kind) term = term * load_lanes(y + at);
                   total = total + first_lanes(term, C{0}, left);
                 },
                 [&](int64_t h) GNNLAB_LAMBDA { store_lanes(sum + h, fold_sum(total, padded)); });
  }
  GNNLAB_ALWAYS void backward_row(const C* y, const C* g, int64_t n, const C* sum, C* gsrc) const {
    Lanes<C> total;
    const bool log_kind = kind == GNNLAB_LOG_SOFTMAX;
    along_row<C>(n, padded, [&](int64_t h) GNNLAB_LAMBDA { total = periodic(sum + h, padded); },
                 [&](int64_t at, int64_t) GNNLAB_LAMBDA {
                   const Lanes<C> a = load_lanes(y + at), b = load_lanes(g + at);
                   store_lanes(gsrc + at, log_kind ? b - exp_lanes(a) * total : a * (b - total));
                 },
                 [](int64_t) GNNLAB_LAMBDA {});
  }
  void backward(const Chunk& c, C* in_y, C* in_g, C* gsrc, C* sum, C* stats) const {
    const C* y = numbers(c, src, in_y);
    const C* g = numbers(c, grad, in_g);
    for (int64_t row = c.first; row < c.last; ++row) {
      const int64_t begin = row_begin(rows, c, row), n = row_end(rows, c, row) - begin;
      const int64_t at = (begin - c.begin) * padded;
      backward_sum(y + at, g + at, n, sum);
      if (c.slot < 0) backward_row(y + at, g + at, n, sum, gsrc + at);
    }
    if (c.slot < 0) return finish(c, gsrc);
    for (int64_t h = 0; h < padded; ++h) stats[c.slot * 2 * padded + h] = sum[h];
  }
  void backward_again(const Chunk& c, C* in_y, C* in_g, C* gsrc, const C* stats) const {
    const C* y = numbers(c, src, in_y);
    const C* g = numbers(c, grad, in_g);
    backward_row(y, g, c.end - c.begin, stats + c.slot * 2 * padded, gsrc);
    finish(c, gsrc);
  }
  // Adds up the blocks' sums; all slots of the row then hold the row's.
  void join_sums(C* stats) const {
    for_each_long(rows, [&](int64_t row, int64_t, int64_t block, int64_t blocks) {
      if (block > 0) return;
      const int64_t begin = rows.indptr[row];
      for (int64_t h = 0; h < padded; ++h) {
        C sum = 0;
        for (int64_t b = 0; b < blocks; ++b)
          sum += stats[slot_of(begin + b * kBlock, b + 1 == blocks) * 2 * padded + h];
        for (int64_t b = 0; b < blocks; ++b)
          stats[slot_of(begin + b * kBlock, b + 1 == blocks) * 2 * padded + h] = sum;
      }
    });
  }

  int run(int threads) const {
    if (rows.num_rows == 0 || heads == 0) return GNNLAB_OK;
    if (kind != GNNLAB_LOGSUMEXP) advise_huge_pages(out, rows.num_edges * heads * sizeof(S));
    const int team = useful_threads(threads, 4 * (rows.num_edges + rows.num_rows) * heads);
    const int64_t each = 3 * room() + 2 * rows_room();
    Scratch<C> work(team * each), stats(num_slots(rows) * 2 * padded);
    if (!work.data || !stats.data) return no_memory();
    const bool any_long = on_threads(rows, team, [&](int t, Cut from, Cut to) {
      C *a = work.data + t * each, *b = a + room(), *d = b + room(), *top = d + room();
      return walk(rows, from, to, target, [&](const Chunk& c) {
        if (grad) backward(c, a, b, d, top, stats.data);
        else forward(c, a, d, top, top + rows_room(), stats.data);
      });
    });
    if (!any_long) return GNNLAB_OK;
    if (grad) join_sums(stats.data);
    else join_statistics(rows, padded, stats.data, [](int64_t, int64_t, C) GNNLAB_LAMBDA {});
    if (kind == GNNLAB_LOGSUMEXP) {
      log_sums_of_long(stats.data);
      return GNNLAB_OK;
    }
    on_threads(rows, team, [&](int t, Cut from, Cut to) {
      C *a = work.data + t * each, *b = a + room(), *d = b + room();
      return walk(rows, from, to, target, [&](const Chunk& c) {
        if (c.slot < 0) return;
        if (grad) backward_again(c, a, b, d, stats.data);
        else forward_again(c, a, d, stats.data);
      });
    });
    return GNNLAB_OK;
  }
  void log_sums_of_long(const C* stats) const {
    const C infinity = static_cast<C>(__builtin_inf());
    for_each_long(rows, [&](int64_t row, int64_t slot, int64_t block, int64_t) {
      if (block > 0) return;
      const C* part = stats + slot * 2 * padded;
      for (int64_t h = 0; h < heads; ++h) {
        C value = part[h] + log_of(part[padded + h]);
        if (part[h] == infinity || part[h] == -infinity) {
          value = part[h];
          for (int64_t k = rows.indptr[row]; k < rows.indptr[row + 1]; ++k) {
            const C x = item(src + listed(perm(), k) * heads + h);
            if (x != x) value = x;
          }
        }
        store<S, 1>(out + row * heads + h, value);
      }
    });
  }
};

struct Call {
  const gnnlab_rows* rows;
  const void* row_of;
  int row_bytes;
  const void* src;
  const void* grad;
  int64_t heads;
  int kind, dtype;
  void* out;
  int threads;
};

template <typename S, typename I>
int run(const Call& a) {
  const S* src = static_cast<const S*>(a.src);
  const S* grad = static_cast<const S*>(a.grad);
  S* out = static_cast<S*>(a.out);
  if constexpr (__is_same(S, Compute<S>)) {
    // A log-softmax loses digits without the largest score; its gradient does not.
    if ((a.kind == GNNLAB_SOFTMAX || grad) && by_edge_pays<S>(*a.rows, a.row_of, a.heads)) {
      bool done = false;
      const auto call = a.row_bytes == 4 ? by_edge<S, int32_t> : by_edge<S, int64_t>;
      const int status = call(*a.rows, a.row_of, src, grad, a.heads, a.kind == GNNLAB_LOG_SOFTMAX, out, a.threads, &done);
      if (status != GNNLAB_OK || done) return status;
    }
  }
  const int64_t padded = padded_heads<Compute<S>>(a.heads);
  const Softmax<S, I> job{*a.rows, src, grad, out, a.heads, padded, max2<int64_t>(kChunkItems / padded, 1),
                          a.kind};
  return job.run(a.threads);
}

int by_dtype(const Call& a) {
  return with_types(a.dtype, a.rows->index_bytes,
                    [&](auto s, auto i) { return run<decltype(s), decltype(i)>(a); });
}

}  // namespace

int softmax(const gnnlab_rows* rows, const void* row_of, int row_bytes, const void* src, int64_t heads,
            int kind, int dtype, void* out, int threads) {
  return by_dtype({rows, row_of, row_bytes, src, nullptr, heads, kind, dtype, out, threads});
}

int softmax_backward(const gnnlab_rows* rows, const void* row_of, int row_bytes, const void* out,
                     const void* grad, int64_t heads, int kind, int dtype, void* gsrc, int threads) {
  if (rows->num_edges == 0) return GNNLAB_OK;
  return by_dtype({rows, row_of, row_bytes, out, grad, heads, kind, dtype, gsrc, threads});
}

}  // namespace gnnlab::GNNLAB_NS
