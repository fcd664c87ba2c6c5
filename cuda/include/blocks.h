// Distances of many dimensions: every target against every point of its graph, in blocks.
//
// Points lie in blocks of 16, dimension by dimension, so that 4 targets x 16 points are one tile of
// running sums in registers: a load is used four times, and sums run in order of dimension, hence
// need no second look. (A product of matrices, |x|^2 + |y|^2 - 2 <x, y>, would save one operation of
// three and lose the digits of close points.) A group of 32 targets goes over the points in pieces
// that stay in the second-level cache.
#pragma once

#include "grid.h"
#include "select.h"

namespace gnnlab::GNNLAB_NS {

class Blocks {
 public:
  static constexpr int64_t kPoints = 16, kTile = 4, kGroup = 32;

  Blocks(const double* x, int64_t dim, const ByGraph& graphs)
      : first_(graphs.graphs + 1), x_(x), dim_(dim), graphs_(graphs), packed_(room(graphs) * kPoints * dim) {}

  int build() {
    if (!first_.data || !packed_.data) return no_memory();
    int64_t at = 0;
    for (int64_t g = 0; g < graphs_.graphs; ++g) {
      first_.data[g] = at;
      for (int64_t p = graphs_.ptr.data[g]; p < graphs_.ptr.data[g + 1]; p += kPoints, ++at)
        for (int64_t f = 0; f < dim_; ++f)
          for (int64_t j = 0; j < kPoints; ++j) {
            const int64_t q = min2(p + j, graphs_.ptr.data[g + 1] - 1);  // the last one fills up
            packed_.data[(at * dim_ + f) * kPoints + j] = x_[graphs_.id.data[q] * dim_ + f];
          }
    }
    first_.data[graphs_.graphs] = at;
    return GNNLAB_OK;
  }

  // Calls use(t, ids, distances, m) for the targets t of a group, all of graph g; points come in
  // ascending order. target[t]: coordinates.
  template <class Use>
  void visit(int64_t g, const double* const* target, int64_t count, const Use& use) const {
    const int64_t step = max2<int64_t>(1, (1 << 18) / (8 * kPoints * max2<int64_t>(dim_, 1)));
    const int64_t last = first_.data[g + 1];
    for (int64_t from = first_.data[g]; from < last; from += step)
      for (int64_t t = 0; t < count; t += kTile) {
        const double* q[kTile];
        for (int64_t i = 0; i < kTile; ++i) q[i] = target[min2(t + i, count - 1)];
        for (int64_t b = from; b < min2(from + step, last); ++b) {
          double d2[kTile][kPoints];
          tile(q, packed_.data + b * dim_ * kPoints, d2);
          const int64_t p = graphs_.ptr.data[g] + (b - first_.data[g]) * kPoints;
          const int64_t m = min2(kPoints, graphs_.ptr.data[g + 1] - p);
          for (int64_t i = 0; i < min2(kTile, count - t); ++i) use(t + i, graphs_.id.data + p, d2[i], m);
        }
      }
  }

 private:
  void tile(const double* const* q, const double* x, double (*d2)[kPoints]) const {
    Eight sum[kTile][2] = {};
    for (int64_t f = 0; f < dim_; ++f) {
      const Eight* at = reinterpret_cast<const Eight*>(x + f * kPoints);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kTile; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          const Eight difference = at[v] - q[i][f];
          sum[i][v] += difference * difference;
        }
    }
    for (int64_t i = 0; i < kTile; ++i)
      for (int v = 0; v < 2; ++v) reinterpret_cast<Eight*>(d2[i])[v] = sum[i][v];
  }
  static int64_t room(const ByGraph& graphs) {
    int64_t blocks = 0;
    for (int64_t g = 0; g < graphs.graphs; ++g) blocks += (graphs.size(g) + kPoints - 1) / kPoints;
    return blocks;
  }

  Scratch<int64_t> first_;  // block of each graph
  const double* x_;
  int64_t dim_;
  const ByGraph& graphs_;
  Scratch<double> packed_;
};

}  // namespace gnnlab::GNNLAB_NS
