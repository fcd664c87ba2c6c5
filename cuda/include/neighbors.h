// What the two neighbour searches share: their arguments, squared distances, rows of cells near a
// target, groups of targets.
#pragma once

#include "blocks.h"

namespace gnnlab::GNNLAB_NS {

inline constexpr double kInfinity = __builtin_inf();
inline constexpr double kMargin = 1e-6;  // of a cell; rounding of where a point is stays below 1e-7

// What both searches are given; y null means x itself.
struct Points {
  const double* x;
  const int64_t* graph_x;
  int64_t num_x;
  const double* y;
  const int64_t* graph_y;
  int64_t num_y;
  int64_t graphs;
  int64_t dim;
  bool skip;

  const double* target(int64_t t) const { return (y ? y : x) + t * dim; }
  int64_t graph(int64_t t) const { return graph_y ? graph_y[t] : !y && graph_x ? graph_x[t] : 0; }
  int32_t same(int64_t t) const { return skip ? static_cast<int32_t>(t) : -1; }
};

// Squared distances of eight points, from place p, to q.
template <int D>
inline void squares(const Grid<D>& grid, const double* q, int64_t p, Eight& sum) {
  sum = Eight{};
  for (int d = 0; d < D; ++d) {
    const Eight difference = *reinterpret_cast<const Eight*>(grid.pos(d) + p) - q[d];
    sum += difference * difference;
  }
}

// Calls use(key, lo, hi) for rows of cells at most `ring` away, cut at the border of the grid.
template <int D, class Use>
inline void rows_near(const Box<D>& box, int64_t g, const int32_t* at, int32_t ring, const Use& use) {
  int32_t lo[3] = {0, 0, 0}, hi[3] = {0, 0, 0};
  for (int d = 0; d < D; ++d) {
    lo[d] = max2(at[d] - ring, 0);
    hi[d] = min2(at[d] + ring, box.n[d] - 1);
    if (lo[d] > hi[d]) return;
  }
  Key k{static_cast<int32_t>(g), {0, 0, 0}};
  if constexpr (D == 1) {
    use(k, lo[0], hi[0]);
  } else {
    for (k.at[0] = lo[0]; k.at[0] <= hi[0]; ++k.at[0]) {
      if constexpr (D == 2) {
        use(k, lo[1], hi[1]);
      } else {
        for (k.at[1] = lo[1]; k.at[1] <= hi[1]; ++k.at[1]) use(k, lo[2], hi[2]);
      }
    }
  }
}

// Calls use(first, count, g) for the groups of targets of one graph among positions first .. last.
template <class Use>
bool each_group(const ByGraph& targets, int64_t first, int64_t last, const Use& use) {
  int64_t g = 0;
  for (int64_t high = targets.graphs; g < high;) {  // the graph of the first position
    const int64_t middle = (g + high) / 2;
    if (targets.ptr.data[middle + 1] <= first) g = middle + 1; else high = middle;
  }
  for (int64_t p = first; p < last;) {
    while (targets.ptr.data[g + 1] <= p) ++g;
    const int64_t end = min2(min2(last, targets.ptr.data[g + 1]), p + Blocks::kGroup);
    if (!use(p, end - p, g)) return false;
    p = end;
  }
  return true;
}

// Pieces that targets are dealt out in.
inline int64_t pieces_for(int64_t num, int team) {
  return max2<int64_t>(1, min2<int64_t>(num / 256, team == 1 ? 1 : 16 * team));
}

inline int check_points(const Points& given) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (given.num_x >= kMost || given.num_y >= kMost || given.graphs >= kMost)
    return fail(GNNLAB_BAD_ARGUMENT, "the neighbour search takes fewer than 2^30 points and graphs");
  for (int64_t i = 0; given.y && given.graph_y && i < given.num_y; ++i)
    if (static_cast<uint64_t>(given.graph_y[i]) >= static_cast<uint64_t>(given.graphs))
      return bad_index(given.graph_y[i], i, given.graphs);
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
