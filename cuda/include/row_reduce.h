// Reduces rows of edges: the one loop behind reduce, segment and scatter.
//
// Algorithm: rows are dealt out so that every thread gets the same number of rows + edges. A thread
//   keeps a tile of the feature row in registers, takes in one gathered row per edge, and writes the
//   tile once. Narrow tiles use 2 or 4 accumulators in turn, because one alone waits for the adder.
// Order (the same for every thread count and instruction set): edge k of a row goes to accumulator
//   k mod U, accumulators are merged pairwise, U = 1, 2, 4 for tiles of >= 256, 128, <= 64 bytes;
//   fewer than 2 U edges go to one accumulator. Rows above kBlock edges do this per block and merge
//   the blocks in order.
// Long rows leave one partial row per block in scratch memory, which are merged afterwards; so do
//   rows that are cut between threads.
// Maxima run without a thought for NaN and note whether one was seen; such rows are done again.
#pragma once

#include "parallel.h"
#include "tile.h"

namespace gnnlab::GNNLAB_NS {

// Which row of x, and which weight, belongs to a place. Three answers, from fast to general.
template <typename S>
struct Listed {  // row col[k], no weight
  static constexpr bool kWeighted = false;
  static constexpr int kTiles = 2;
  static constexpr bool kFetch = true;
  const int32_t* col;
  int64_t last;  // place
  GNNLAB_INLINE int64_t row(int64_t k) const { return col[k]; }
  GNNLAB_INLINE void fetch_weight(int64_t) const {}
  GNNLAB_INLINE Compute<S> weight(int64_t) const { return 1; }
  Listed of_head(int64_t) const { return *this; }
};
template <typename S>
struct InOrder {  // row k, no weight
  static constexpr bool kWeighted = false;
  static constexpr int kTiles = 2;
  static constexpr bool kFetch = false;
  GNNLAB_INLINE int64_t row(int64_t k) const { return k; }
  GNNLAB_INLINE Compute<S> weight(int64_t) const { return 1; }
  InOrder of_head(int64_t) const { return *this; }
};
template <typename S>
struct Weighted {  // row col[k], weight[perm[k]]
  static constexpr bool kWeighted = true;
  static constexpr int kTiles = 2;
  static constexpr bool kFetch = true;
  const int32_t* col;
  int64_t last;  // place
  const int32_t* perm;
  const S* data;
  int64_t stride, step;  // of the edges and of the heads
  GNNLAB_INLINE int64_t row(int64_t k) const { return col[k]; }
  GNNLAB_INLINE Compute<S> weight(int64_t k) const { return item(data + (perm ? perm[k] : k) * stride); }
  GNNLAB_INLINE void fetch_weight(int64_t k) const {
    if (perm) __builtin_prefetch(data + perm[k] * stride);
  }
  Weighted of_head(int64_t head) const { return {col, last, perm, data + head * step, stride, step}; }
};
template <typename S>
struct General {  // anything else: indices of 8 bytes, weights without col
  static constexpr bool kWeighted = true;
  static constexpr int kTiles = 0;
  static constexpr bool kFetch = false;
  const void* col;
  const void* perm;
  const S* data;
  int64_t stride, step;
  bool wide;
  GNNLAB_INLINE int64_t look(const void* at, int64_t k) const {
    if (!at) return k;
    return wide ? static_cast<const int64_t*>(at)[k] : static_cast<const int32_t*>(at)[k];
  }
  GNNLAB_INLINE int64_t row(int64_t k) const { return look(col, k); }
  GNNLAB_INLINE Compute<S> weight(int64_t k) const {
    return data ? item(data + look(perm, k) * stride) : Compute<S>(1);
  }
  General of_head(int64_t head) const {
    return {col, perm, data ? data + head * step : data, stride, step, wide};
  }
};

template <typename S>
struct RowJob {
  using C = Compute<S>;
  const int64_t* indptr;
  int64_t num_rows, num_edges;
  const S* x;
  int64_t ldx, heads, width;  // x has heads * width items a row
  bool mean;
  Int<C> flip;  // see Accumulator
  S* out;
  void* arg;
  bool wide_arg;
  int threads;
  C* partial;  // where blocks of long rows go, unrounded, instead of to out
};

constexpr int accumulators(int bytes) { return bytes >= 256 ? 1 : bytes >= 128 ? 2 : 4; }

// Distances, in edges, at which rows and weights are asked for.
inline constexpr int64_t kFetchRow = 24, kFetchWeight = 48;

// Asks for the rows of an edge a few places on, which may belong to the next row: the processor sees
// fewer edges ahead than memory is slow.
template <int W, class Edges, typename S>
GNNLAB_INLINE void fetch_ahead([[maybe_unused]] const Edges& edges, [[maybe_unused]] const S* x,
                               [[maybe_unused]] int64_t ldx, [[maybe_unused]] int64_t e) {
  constexpr int kBytes = W * static_cast<int>(sizeof(S));
  if constexpr (Edges::kFetch && kBytes >= 64) {
    const int64_t later = min2(e + kFetchRow, edges.last);
    const char* row = reinterpret_cast<const char*>(x + edges.row(later) * ldx);
#pragma GCC unroll 16
    for (int b = 0; b < kBytes; b += 64) __builtin_prefetch(row + b);
    edges.fetch_weight(min2(e + kFetchWeight, edges.last));
  }
}

template <int W, typename Acc, class Edges, typename S, typename X>
GNNLAB_INLINE void add_edge(Acc& acc, const Edges& edges, const S* x, int64_t ldx, int64_t e,
                            X position, X flip, Int<Compute<S>> sign) {
  fetch_ahead<W>(edges, x, ldx, e);
  acc.template add<Edges::kWeighted>(x + edges.row(e) * ldx, edges.weight(e), position, flip, sign);
}

// total = edges [begin, end), at most kBlock of them; NaN not minded.
template <int W, typename Acc, class Edges, typename S, typename X>
GNNLAB_INLINE void reduce_quickly(Acc& total, const Edges& edges, const S* x, int64_t ldx,
                                  int64_t begin, int64_t end, X flip, Int<Compute<S>> sign) {
  constexpr int U = accumulators(W * static_cast<int>(sizeof(Compute<S>)));
  X position{};
  int64_t e = begin;
  total.clear(0);
  if (U == 1 || end - begin < 2 * U) {  // short: one loop costs one wrong guess of the processor
#pragma GCC unroll 1
    for (; e < end; ++e, position += 1) add_edge<W>(total, edges, x, ldx, e, position, flip, sign);
    return;
  }
  Acc part[U];
  part[0] = total;
#pragma GCC unroll 4
  for (int u = 1; u < U; ++u) part[u].clear(u);
  for (; e + U <= end; e += U) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u, position += 1)
      add_edge<W>(part[u], edges, x, ldx, e + u, position, flip, sign);
  }
  if constexpr (U > 1) {
#pragma GCC unroll 4
    for (int u = 0; u < U - 1; ++u, position += 1)
      if (e + u < end) add_edge<W>(part[u], edges, x, ldx, e + u, position, flip, sign);
  }
  if constexpr (U >= 2) part[0].merge(part[1]);
  if constexpr (U == 4) {
    part[2].merge(part[3]);
    part[0].merge(part[2]);
  }
  total = part[0];
}

// The maximum of two, the first argument being earlier: a NaN wins, the earlier one among equals.
template <typename C, typename A>
GNNLAB_INLINE void take(C& value, A& arg, C other, A position) {
  if (value == value && !(other <= value)) {
    value = other;
    arg = position;
  }
}

// The same as reduce_quickly for rows with NaN and any number of columns.
template <class Edges, typename S>
__attribute__((noinline)) void reduce_exactly(const Edges& edges, const S* x, int64_t ldx, int64_t begin,
                                              int64_t end, Int<Compute<S>> flip, int width,
                                              Compute<S>* value, Int<Compute<S>>* arg) {
  using C = Compute<S>;
  for (int64_t e = begin; e < end; ++e) {
    const S* row = x + edges.row(e) * ldx;
    const C weight = edges.weight(e);
    for (int f = 0; f < width; ++f) {
      C v = item(row + f);
      if constexpr (Edges::kWeighted) v = v * weight;
      v = bits_as<C>(static_cast<Int<C>>(bits_as<Int<C>>(v) ^ flip));
      if (e == begin) {
        value[f] = v;
        arg[f] = 0;
      } else {
        take(value[f], arg[f], v, static_cast<Int<C>>(e - begin));
      }
    }
  }
}

// Rows [first, last), none longer than kBlock, columns [at, at + W).
template <typename S, int W, Mode MODE, class Edges>
void reduce_rows(const RowJob<S>& job, const Edges edges, int64_t at, int64_t first, int64_t last) {
  using C = Compute<S>;
  constexpr bool kPaired = std::is_same_v<S, Bf16> && MODE == kSum && W * sizeof(C) >= 2 * kVectorBytes;
  using Acc = Accumulator<C, W, MODE, kPaired>;
  const int64_t ldo = job.heads * job.width, ldx = job.ldx;
  const S* const x = job.x + at;
  const typename Acc::X flip = typename Acc::X{} + job.flip;
  int64_t end = job.indptr[first];
  for (int64_t row = first; row < last; ++row) {
    const int64_t begin = end;
    end = job.indptr[row + 1];
    Acc total;
    reduce_quickly<W>(total, edges, x, ldx, begin, end, flip, job.flip);
    if constexpr (Acc::kNan) {
      if (__builtin_expect(total.nan.any(), 0)) {
        C value[W];
        Int<C> arg[W];
        reduce_exactly(edges, x, ldx, begin, end, job.flip, W, value, arg);
        __builtin_memcpy(total.value, value, sizeof value);
        if constexpr (MODE == kArg) __builtin_memcpy(total.arg, arg, sizeof arg);
      }
    }
    int64_t base = begin;
    if constexpr (MODE >= kMax) {
      if (begin == end) {  // 0 once it is flipped back
        for (auto& v : total.value) v = bits_as<typename Acc::V>(flip);
        base = job.num_edges;
      }
    }
    if constexpr (MODE == kSum)
      if (job.mean && begin != end) total.divide(static_cast<C>(end - begin));
    if (__builtin_expect(job.partial != nullptr, 0))
      total.template store_value<C>(job.partial + row * ldo + at, flip);
    else
      total.template store_value<S>(job.out + row * ldo + at, flip);
    if constexpr (MODE == kArg) {
      if (job.wide_arg) total.store_arg(static_cast<int64_t*>(job.arg) + row * ldo + at, base);
      else total.store_arg(static_cast<int32_t*>(job.arg) + row * ldo + at, base);
    }
  }
}

template <int W>
using Width = std::integral_constant<int, W>;

// Calls use(Width<W>, offset) for tiles that cover [0, width). The last tile may overlap the one
// before it: those columns are computed twice and stored twice, which is cheaper than a mask.
// TILES: 2 all widths, 1 fewer, 0 the least code; MOST: 64-byte units of the widest tile.
template <typename C, int TILES, int MOST, class Use>
void cover(int64_t width, const Use& use) {
  constexpr int64_t L = 64 / static_cast<int64_t>(sizeof(C));  // items in 64 bytes
  int64_t at = 0;
  if constexpr (TILES == 2 && MOST >= 16)
    for (; at + 16 * L <= width; at += 16 * L) use(Width<16 * L>{}, at);
  if constexpr (TILES >= 1 && MOST >= 8)
    for (; at + 8 * L <= width; at += 8 * L) use(Width<8 * L>{}, at);
  if constexpr (MOST >= 4)
    for (; at + 4 * L <= width; at += 4 * L) use(Width<4 * L>{}, at);
  if constexpr (TILES == 2 && MOST >= 2)
    for (; at + 2 * L <= width; at += 2 * L) use(Width<2 * L>{}, at);
  for (; at + L <= width; at += L) use(Width<L>{}, at);
  if (at == width) return;
  if (width > L) return use(Width<L>{}, width - L);
  if constexpr (L > 8 && TILES >= 1) {
    if (width >= 8) {
      use(Width<8>{}, 0);
      if (width > 8) use(Width<8>{}, width - 8);
      return;
    }
  }
  for (; at + 4 <= width; at += 4) use(Width<4>{}, at);
  if (at == width) return;
  if (width > 4) return use(Width<4>{}, width - 4);
  if constexpr (TILES >= 1)
    if (width >= 2) use(Width<2>{}, 0), at = 2;
  for (; at < width; ++at) use(Width<1>{}, at);
}

// The widest tile that leaves registers for everything else, in units of 64 bytes.
constexpr int widest_tile(Mode mode) {
  if (mode == kMul) return 4;
  if (mode != kArg) return kVectorBytes == 64 ? 16 : 4;
  return kVectorBytes == 64 ? 8 : kVectorBytes == 32 ? 2 : 1;
}

inline int64_t blocks_of(const int64_t* indptr, int64_t row) {
  return (indptr[row + 1] - indptr[row] + kBlock - 1) / kBlock;
}

// One job on one team of threads.
template <typename S, Mode MODE, class Edges>
struct RowRun {
  using C = Compute<S>;
  const RowJob<S>& job;
  const Edges& edges;
  int64_t items;  // of a row

  // Rows [first, last) of `rows`, all columns.
  void tiles(const RowJob<S>& rows, int64_t first, int64_t last) const {
    constexpr int kTiles = MODE == kMul ? 0 : min2(Edges::kTiles, sizeof(S) == 4 ? 2 : 1);
    for (int64_t head = 0; head < job.heads; ++head) {
      const Edges mine = edges.of_head(head);
      cover<C, kTiles, widest_tile(MODE)>(job.width, [&](auto w, int64_t at) {
        reduce_rows<S, decltype(w)::value, MODE>(rows, mine, head * job.width + at, first, last);
      });
    }
  }

  // Blocks [first, last) of a long row, each to its own row of value and arg.
  void blocks(int64_t row, int64_t first, int64_t last, C* value, int64_t* arg) const {
    RowJob<S> rows = job;
    rows.mean = false;
    rows.wide_arg = true;
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = job.indptr[row] + block * kBlock;
      const int64_t ends[2] = {begin, min2(job.indptr[row + 1], begin + kBlock)};
      rows.indptr = ends;
      rows.partial = value + block * items;
      rows.arg = MODE == kArg ? arg + block * items : nullptr;
      tiles(rows, 0, 1);
    }
  }

  // Merges the blocks of a long row, in order, and writes the row.
  void merge(int64_t row, const C* value, const int64_t* arg) const {
    const int64_t length = job.indptr[row + 1] - job.indptr[row];
    for (int64_t f = 0; f < items; ++f) {
      C total = value[f];
      int64_t place = MODE == kArg ? arg[f] : 0;
      for (int64_t b = 1; b * kBlock < length; ++b) {
        const C other = value[b * items + f];
        if constexpr (MODE == kSum) total += other;
        if constexpr (MODE == kMul) total *= other;
        if constexpr (MODE >= kMax) {
          total = flipped(total);
          take(total, place, flipped(other), MODE == kArg ? arg[b * items + f] : 0);
          total = flipped(total);
        }
      }
      if (MODE == kSum && job.mean) total /= static_cast<C>(length);
      store<S, 1>(job.out + row * items + f, total);
      if (MODE != kArg) continue;
      if (job.wide_arg) static_cast<int64_t*>(job.arg)[row * items + f] = place;
      else static_cast<int32_t*>(job.arg)[row * items + f] = static_cast<int32_t>(place);
    }
  }
  C flipped(C v) const { return bits_as<C>(static_cast<Int<C>>(bits_as<Int<C>>(v) ^ job.flip)); }

  // Whole rows [row, last). Returns false when memory ran out.
  bool whole(int64_t row, int64_t last) const {
    constexpr int64_t kRows = 64;  // tiles of one group of rows follow each other, for the cache
    while (row < last) {
      int64_t to = row;
      while (to < last && to < row + kRows && job.indptr[to + 1] - job.indptr[to] <= kBlock) ++to;
      if (to > row) tiles(job, row, to);
      row = to;
      if (row == last || job.indptr[row + 1] - job.indptr[row] <= kBlock) continue;
      const int64_t count = blocks_of(job.indptr, row) * items;
      Scratch<C> value(count);
      Scratch<int64_t> arg(MODE == kArg ? count : 0);
      if (!value.data || !arg.data) return false;
      blocks(row, 0, blocks_of(job.indptr, row), value.data, arg.data);
      merge(row, value.data, arg.data);
      ++row;
    }
    return true;
  }
};

// Shares the rows out among `team` > 1 threads; rows that are cut leave their blocks in scratch.
template <typename S, Mode MODE, class Edges>
int reduce_together(const RowRun<S, MODE, Edges>& run, int team) {
  const RowJob<S>& job = run.job;
  const int64_t steps = job.num_rows + job.num_edges;
  Scratch<Cut> cuts(team + 1);
  Scratch<int64_t> start(team + 1);  // first scratch row of the long row that cut t splits
  if (!cuts.data || !start.data) return no_memory();
  int64_t scratch_rows = 0;
  for (int t = 0; t <= team; ++t) {
    const int64_t step = steps / team * t + steps % team * t / team;
    cuts.data[t] = t == 0      ? Cut{0, 0}
                   : t == team ? Cut{job.num_rows, 0}
                               : cut_at(job.indptr, job.num_rows, step);
    start.data[t] = 0;
    if (cuts.data[t].block == 0) continue;
    if (cuts.data[t - 1].block > 0 && cuts.data[t - 1].row == cuts.data[t].row) {
      start.data[t] = start.data[t - 1];
    } else {
      start.data[t] = scratch_rows * run.items;
      scratch_rows += blocks_of(job.indptr, cuts.data[t].row);
    }
  }
  Scratch<Compute<S>> value(scratch_rows * run.items);
  Scratch<int64_t> arg(MODE == kArg ? scratch_rows * run.items : 0);
  if (!value.data || !arg.data) return no_memory();
  int failures = 0;
#pragma omp parallel for num_threads(team) schedule(static, 1) reduction(+ : failures)
  for (int t = 0; t < team; ++t) {
    const Cut from = cuts.data[t], to = cuts.data[t + 1];
    const auto cut_row = [&](int64_t at, int64_t row, int64_t first, int64_t last) {
      run.blocks(row, first, last, value.data + at, arg.data + (MODE == kArg ? at : 0));
    };
    int64_t row = from.row;
    if (from.block > 0) {
      cut_row(start.data[t], row, from.block, to.row == row ? to.block : blocks_of(job.indptr, row));
      if (to.row == row) continue;
      ++row;
    }
    if (!run.whole(row, to.row)) ++failures;
    if (to.block > 0) cut_row(start.data[t + 1], to.row, 0, to.block);
  }
  if (failures) return no_memory();
  for (int t = 1; t < team; ++t) {
    const Cut cut = cuts.data[t], before = cuts.data[t - 1];
    if (cut.block == 0 || (before.block > 0 && before.row == cut.row)) continue;
    run.merge(cut.row, value.data + start.data[t], arg.data + (MODE == kArg ? start.data[t] : 0));
  }
  return GNNLAB_OK;
}

template <Mode MODE, typename S, class Edges>
int reduce_all(const RowJob<S>& job, const Edges& edges) {
  const int64_t items = job.heads * job.width;
  if (job.num_rows == 0 || items == 0) return GNNLAB_OK;
  const RowRun<S, MODE, Edges> run{job, edges, items};
  const int team = useful_threads(job.threads, (job.num_rows + job.num_edges) * items);
  if (team > 1) return reduce_together(run, team);
  return run.whole(0, job.num_rows) ? GNNLAB_OK : no_memory();
}

}  // namespace gnnlab::GNNLAB_NS
