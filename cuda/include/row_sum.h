// Sums rows of edges: the one loop behind spmm, segment and scatter.
//
// Algorithm: rows are dealt out so that every thread gets the same number of rows + edges. A thread
//   keeps a tile of the feature row in registers, adds one gathered row per edge, and writes the
//   tile once. Narrow tiles use 2 or 4 accumulators in turn, because one alone waits for the adder.
// Order of additions (the same for every thread count and instruction set): edge k of a row goes to
//   accumulator k mod U, accumulators are added pairwise, U = 1, 2, 4 for tiles of >= 256, 128,
//   <= 64 bytes; fewer than 2 U edges go to one accumulator; rows above kBlock edges do this per block and add the blocks in order.
// Rows cut between threads leave one partial row per block in scratch memory; the caller's thread
//   adds them after the only parallel region.
#pragma once

#include <type_traits>

#include "parallel.h"
#include "tile.h"

namespace gnnlab::GNNLAB_NS {

// Where the row of edge e lies in x: given by an index array, or e itself.
template <typename I>
struct Listed {
  const I* at;
  inline int64_t operator()(int64_t e) const { return static_cast<int64_t>(at[e]); }
};
struct InOrder {
  inline int64_t operator()(int64_t e) const { return e; }
};

struct NoWeight {};
// The weight of edge e: `place` turns row order into the caller's order.
template <typename T, class Place>
struct Weight {
  const T* data;
  int64_t stride;
  Place place;
  inline T operator()(int64_t e) const { return data[place(e) * stride]; }
};

template <typename T>
struct RowSum {
  const int64_t* indptr;
  int64_t num_rows, num_edges;
  const T* x;
  int64_t ldx, heads, width;  // x has heads * width items a row
  int64_t weight_step;        // 1 when every head has its own weight
  bool mean;
  T* out;
  int threads;
};

template <typename T, int W, class Place, class Weights>
inline __attribute__((always_inline)) void add_edge(Tile<T, W>& tile, const T* x, int64_t ldx,
                                                    const Place& place, const Weights& weights,
                                                    int64_t e) {
  const T* row = x + place(e) * ldx;
  if constexpr (std::is_same_v<Weights, NoWeight>) tile.add(row);
  else tile.add_scaled(row, weights(e));
}

constexpr int accumulators(int bytes) { return bytes >= 256 ? 1 : bytes >= 128 ? 2 : 4; }

// total = sum of edges [begin, end), at most kBlock of them.
template <typename T, int W, class Place, class Weights>
inline __attribute__((always_inline)) void sum_edges(Tile<T, W>& total, const T* x, int64_t ldx,
                                                     const Place& place, const Weights& weights,
                                                     int64_t begin, int64_t end) {
  constexpr int U = accumulators(W * static_cast<int>(sizeof(T)));
  Tile<T, W> part[U];
  int64_t e = begin;
  if (U > 1 && end - begin < 2 * U) {  // short: one loop costs one wrong guess of the processor
    total.clear();
#pragma GCC unroll 1
    for (; e < end; ++e) add_edge(total, x, ldx, place, weights, e);
    return;
  }
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u) part[u].clear();
  for (; e + U <= end; e += U) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) add_edge(part[u], x, ldx, place, weights, e + u);
  }
  if constexpr (U > 1) {
#pragma GCC unroll 4
    for (int u = 0; u < U - 1; ++u)
      if (e + u < end) add_edge(part[u], x, ldx, place, weights, e + u);
  }
  if constexpr (U >= 2) part[0].add(part[1]);
  if constexpr (U == 4) {
    part[2].add(part[3]);
    part[0].add(part[2]);
  }
  total = part[0];
}

// Whole rows [first, last), columns [0, W) of x and out.
template <typename T, int W, class Place, class Weights>
void sum_rows(const RowSum<T>& job, const T* x, T* out, const Place& place, const Weights& weights,
              int64_t first, int64_t last) {
  const int64_t ldo = job.heads * job.width;
  for (int64_t row = first; row < last; ++row) {
    const int64_t begin = job.indptr[row], end = job.indptr[row + 1];
    Tile<T, W> total;
    sum_edges(total, x, job.ldx, place, weights, begin, min2(end, begin + kBlock));
    for (int64_t b = begin + kBlock; b < end; b += kBlock) {
      Tile<T, W> part;
      sum_edges(part, x, job.ldx, place, weights, b, min2(end, b + kBlock));
      total.add(part);
    }
    if (job.mean && end > begin) total.divide(static_cast<T>(end - begin));
    total.store(out + row * ldo);
  }
}

// Blocks [first, last) of one long row, each to its own row of `partial`.
template <typename T, int W, class Place, class Weights>
void sum_blocks(const RowSum<T>& job, const T* x, T* partial, const Place& place,
                const Weights& weights, int64_t row, int64_t first, int64_t last) {
  const int64_t ldo = job.heads * job.width, end = job.indptr[row + 1];
  for (int64_t block = first; block < last; ++block) {
    const int64_t begin = job.indptr[row] + block * kBlock;
    Tile<T, W> total;
    sum_edges(total, x, job.ldx, place, weights, begin, min2(end, begin + kBlock));
    total.store(partial + block * ldo);
  }
}

template <int W>
using Width = std::integral_constant<int, W>;

// Calls use(Width<W>, offset) for tiles that cover [0, width). The last tile may overlap the one
// before it: those columns are computed twice and stored twice, which is cheaper than a mask.
template <typename T, class Use>
void cover(int64_t width, const Use& use) {
  constexpr int64_t L = 64 / static_cast<int64_t>(sizeof(T));  // items in 64 bytes
  int64_t at = 0;
#if defined(__AVX512F__)
  for (; at + 16 * L <= width; at += 16 * L) use(Width<16 * L>{}, at);
  for (; at + 8 * L <= width; at += 8 * L) use(Width<8 * L>{}, at);
#endif
  for (; at + 4 * L <= width; at += 4 * L) use(Width<4 * L>{}, at);
  if (at + 2 * L <= width) { use(Width<2 * L>{}, at); at += 2 * L; }
  if (at + L <= width) { use(Width<L>{}, at); at += L; }
  if (at == width) return;
  if (width > L) return use(Width<L>{}, width - L);
  if constexpr (L > 8) {
    if (width >= 8) {
      use(Width<8>{}, 0);
      if (width > 8) use(Width<8>{}, width - 8);
      return;
    }
  }
  if (width >= 4) {
    use(Width<4>{}, 0);
    if (width > 4) use(Width<4>{}, width - 4);
  } else if (width >= 2) {
    use(Width<2>{}, 0);
    if (width > 2) use(Width<1>{}, 2);
  } else {
    use(Width<1>{}, 0);
  }
}

template <typename T, class Weights>
inline Weights weights_of_head(const Weights& weights, [[maybe_unused]] int64_t head,
                               [[maybe_unused]] int64_t step) {
  Weights moved = weights;
  if constexpr (!std::is_same_v<Weights, NoWeight>) moved.data += head * step;
  return moved;
}

// Runs a whole job. Place and Weights are copied, they are a pointer or two.
template <typename T, class Place, class Weights>
int sum_all(const RowSum<T>& job, const Place place, const Weights weights) {
  const int64_t row_items = job.heads * job.width, steps = job.num_rows + job.num_edges;
  if (job.num_rows == 0 || row_items == 0) return GNNLAB_OK;
  const int team = useful_threads(job.threads, steps * row_items);

  Scratch<Cut> cuts(team + 1);
  Scratch<int64_t> split_start(team + 1);  // first scratch row of the long row that cut t splits
  if (!cuts.data || !split_start.data) return no_memory();
  int64_t scratch_rows = 0;
  for (int t = 0; t <= team; ++t) {
    cuts.data[t] = t == 0      ? Cut{0, 0}
                   : t == team ? Cut{job.num_rows, 0}
                               : cut_at(job.indptr, job.num_rows, steps / team * t + steps % team * t / team);
    split_start.data[t] = 0;
    if (cuts.data[t].block == 0) continue;
    const int64_t row = cuts.data[t].row;
    if (t > 0 && cuts.data[t - 1].block > 0 && cuts.data[t - 1].row == row) {
      split_start.data[t] = split_start.data[t - 1];
    } else {
      split_start.data[t] = scratch_rows;
      scratch_rows += (job.indptr[row + 1] - job.indptr[row] + kBlock - 1) / kBlock;
    }
  }
  Scratch<T> partial(scratch_rows * row_items);
  if (!partial.data) return no_memory();

  const auto for_each_tile = [&](const auto& use) {
    for (int64_t head = 0; head < job.heads; ++head) {
      const Weights mine = weights_of_head<T>(weights, head, job.weight_step);
      cover<T>(job.width, [&](auto w, int64_t at) { use(w, head * job.width + at, mine); });
    }
  };
  const auto do_blocks = [&](int64_t start, int64_t row, int64_t first, int64_t last) {
    for_each_tile([&](auto w, int64_t at, const Weights& mine) {
      sum_blocks<T, decltype(w)::value>(job, job.x + at, partial.data + start * row_items + at,
                                        place, mine, row, first, last);
    });
  };
  const auto do_share = [&](int t) {
    const Cut from = cuts.data[t], to = cuts.data[t + 1];
    int64_t row = from.row;
    if (from.block > 0) {
      const int64_t blocks = (job.indptr[row + 1] - job.indptr[row] + kBlock - 1) / kBlock;
      do_blocks(split_start.data[t], row, from.block, to.row == row ? to.block : blocks);
      if (to.row == row) return;
      ++row;
    }
    constexpr int64_t kRows = 64;  // tiles of one group of rows follow each other, for the cache
    for (; row < to.row; row += kRows) {
      const int64_t last = min2(to.row, row + kRows);
      for_each_tile([&](auto w, int64_t at, const Weights& mine) {
        sum_rows<T, decltype(w)::value>(job, job.x + at, job.out + at, place, mine, row, last);
      });
    }
    if (to.block > 0) do_blocks(split_start.data[t + 1], to.row, 0, to.block);
  };

  if (team == 1) {
    do_share(0);
  } else {
#pragma omp parallel for num_threads(team) schedule(static, 1)
    for (int t = 0; t < team; ++t) do_share(t);
  }

  for (int t = 1; t < team; ++t) {
    const int64_t row = cuts.data[t].row;
    if (cuts.data[t].block == 0 || (cuts.data[t - 1].block > 0 && cuts.data[t - 1].row == row)) continue;
    const int64_t length = job.indptr[row + 1] - job.indptr[row];
    const T* part = partial.data + split_start.data[t] * row_items;
    T* out = job.out + row * row_items;
    for (int64_t f = 0; f < row_items; ++f) out[f] = part[f];
    for (int64_t b = 1; b * kBlock < length; ++b)
      for (int64_t f = 0; f < row_items; ++f) out[f] += part[b * row_items + f];
    if (job.mean)
      for (int64_t f = 0; f < row_items; ++f) out[f] /= static_cast<T>(length);
  }
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
