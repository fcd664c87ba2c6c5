// k-NN: the k nearest points of each target.
//
// Algorithm: up to three dimensions a uniform grid (grid.h) with a few points per cell, refined where
//   points crowd. Rings of cells around the target are searched until no cell outside can hold a nearer
//   point; once rings have many cells for the points of the graph, all these are. Above that
//   all pairs of a graph, in tiles (blocks.h).
// Ties: by (distance, id), both in what is kept and in its order. Every target writes to its own place,
//   so the number of threads does not show.
// Rounding: a ring counts 1e-6 of a cell less than it is, more than the number of a cell can be off.
// Measured by `gnnlab bench neighbors`.
#include "families.h"
#include "nearest.h"
#include "neighbors.h"

namespace gnnlab::GNNLAB_NS {
namespace {

// A Best that takes eight at a time, for large k.
struct Heap {
  Best best;
  double worst() const { return best.worst(); }
  bool full() const { return best.full(); }
  void trim() {}
  void offer(const Eight& d2, const int32_t* id, int64_t count, int32_t same) {
    for (int64_t j = 0; j < min2(kStep, count); ++j)
      if (d2[j] <= best.worst() && id[j] != same) best.offer(d2[j], id[j]);
  }
  void finish() { best.finish(); }
  void start(int64_t) { best.clear(); }
  int64_t size() const { return best.size(); }
  const int32_t* id() const { return best.id(); }
};

template <int D, class Nearest>
void nearest_of(const Grid<D>& grid, const double* q, int64_t g, int32_t same, int64_t k, Nearest& best) {
  best.start(k);
  const Box<D>& box = grid.box(g);
  const int64_t first = grid.graphs().ptr.data[g], last = grid.graphs().ptr.data[g + 1];
  if (first == last) return;
  const auto scan = [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p += kStep) {
      Eight d2;
      squares<D>(grid, q, p, d2);
      best.offer(d2, grid.id() + p, end - p, same);
    }
  };
  double v[D];
  int32_t at[D];
  box.place(q, v);
  for (int d = 0; d < D; ++d) at[d] = box.cell(v[d], d);
  // How far q is from the cells numbered c on axis d, squared, and a little less.
  const auto gap = [&](int32_t c, int d) {
    const double cells = max2(max2(c - v[d], v[d] - (c + 1)) - kMargin, 0.0);
    const double length = box.edge[d] * cells * 2;
    return length * length;
  };
  for (int32_t ring = 0;; ++ring) {
    double cells = 1;
    for (int d = 0; d < D; ++d) cells *= 2.0 * ring + 1;
    if (cells > static_cast<double>(last - first) / 16 + 64) {  // a cell costs as much as many points
      best.start(k);
      scan(first, last);
      return;
    }
    rows_near<D>(box, g, at, ring, [&](const Key& k, int32_t lo, int32_t hi) {
      bool whole = D == 1 && ring == 0;
      double away = 0;
      for (int d = 0; d + 1 < D; ++d) {
        whole |= k.at[d] == at[d] - ring || k.at[d] == at[d] + ring;
        away += gap(k.at[d], d);
      }
      if (away > best.worst()) return;
      if (whole) {
        while (lo < hi && away + gap(lo, D - 1) > best.worst()) ++lo;
        while (lo < hi && away + gap(hi, D - 1) > best.worst()) --hi;
        return grid.row(k, lo, hi, scan);
      }
      const int32_t ends[2] = {at[D - 1] - ring, at[D - 1] + ring};
      for (const int32_t c : ends)
        if (c >= lo && c <= hi && away + gap(c, D - 1) <= best.worst()) grid.row(k, c, c, scan);
    });
    double reach = kInfinity;
    bool open = false;
    for (int d = 0; d < D; ++d) {
      if (at[d] - ring > 0) {
        open = true;
        reach = min2(reach, (v[d] - (at[d] - ring) - kMargin) * box.edge[d] * 2);
      }
      if (at[d] + ring < box.n[d] - 1) {
        open = true;
        reach = min2(reach, (at[d] + ring + 1 - v[d] - kMargin) * box.edge[d] * 2);
      }
    }
    best.trim();
    if (!open || (best.full() && reach > 0 && best.worst() < reach * reach)) return;
  }
}

// Edges (halved) of cells that hold `points` points each, if these fill the box.
template <int D>
double edge_for(const Box<D>& box, int64_t num, double points) {
  bool flat[D] = {};
  double edge = 0;
  for (int round = 0; round < D; ++round) {  // an axis shorter than a cell does not count
    int axes = 0;
    double log_volume = 0;
    for (int d = 0; d < D; ++d) {
      flat[d] |= !(box.extent[d] > edge);
      if (flat[d]) continue;
      ++axes;
      log_volume += __builtin_log(box.extent[d]);
    }
    if (axes == 0) break;
    edge = __builtin_exp((log_volume - __builtin_log(max2(static_cast<double>(num) / points, 1.0))) / axes);
  }
  return edge;
}

// Builds a grid with few points per cell: smaller cells where a graph's points crowd together. A few
// steps may change nothing, while all points but a distant one share a cell; if none does, as with
// many points at one place, the last cells that helped are taken.
template <int D>
int build_fine(Grid<D>& grid, const Points& given, int64_t k, int threads) {
  constexpr int kPatience = 6;
  Scratch<double> edge(given.graphs), mean(given.graphs), best(given.graphs), best_edge(given.graphs);
  Scratch<int32_t> vain(given.graphs);  // steps since the best; kPatience when done
  if (!edge.data || !mean.data || !best.data || !best_edge.data || !vain.data) return no_memory();
  const double points = max2(2.0, (D == 3 ? 0.25 : 0.3) * static_cast<double>(k));
  for (int64_t g = 0; g < given.graphs; ++g) {
    edge.data[g] = edge_for<D>(grid.box(g), grid.graphs().size(g), points);
    best.data[g] = kInfinity;
    vain.data[g] = 0;
  }
  for (bool last = false;;) {
    const int status = grid.build(edge.data, threads);
    if (status || last) return status;
    grid.crowding(mean.data);
    bool again = false, back = false;
    for (int64_t g = 0; g < given.graphs; ++g) {
      if (vain.data[g] == kPatience) continue;
      ++vain.data[g];
      if (mean.data[g] < 0.8 * best.data[g]) {
        best.data[g] = mean.data[g];
        best_edge.data[g] = edge.data[g];
        vain.data[g] = 0;
      }
      if (!(mean.data[g] > 8 * points)) vain.data[g] = kPatience;
      if (vain.data[g] == kPatience) {
        back |= edge.data[g] != best_edge.data[g];
        edge.data[g] = best_edge.data[g];
      } else {
        edge.data[g] *= min2(0.5, __builtin_exp(__builtin_log(points / mean.data[g]) / D));
        again = true;
      }
    }
    if (!again && !back) return GNNLAB_OK;
    last = !again;
  }
}

template <class Nearest>
void write_best(const Nearest& best, int64_t k, int64_t* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = i < best.size() ? best.id()[i] : -1;
}

template <int D>
int knn_grid(const Points& given, int64_t k, int64_t* out, int threads) {
  ByGraph graphs(given.num_x, given.graphs);
  int status = graphs.sort(given.graph_x, given.num_x, threads);
  if (status) return status;
  Grid<D> grid(given.x, given.num_x, graphs);
  if ((status = grid.measure()) || (status = build_fine(grid, given, k, threads))) return status;
  const int team = useful_threads(threads, 64 * given.num_y);
  const bool few = k <= Pile::kMost;
  Scratch<double> distance(few ? 0 : team * k);
  Scratch<int32_t> id(few ? 0 : team * k);
  if (!distance.data || !id.data) return no_memory();
#pragma omp parallel num_threads(team) if (team > 1)
  {
    Pile pile;
    Heap heap{few ? Best() : Best(distance.data + team_rank() * k, id.data + team_rank() * k, k)};
    const auto answer = [&](int64_t t, auto& best) {
      nearest_of<D>(grid, given.target(t), given.graph(t), given.same(t), k, best);
      best.finish();
      write_best(best, k, out + t * k);
    };
#pragma omp for schedule(dynamic, 1024)
    for (int64_t p = 0; p < given.num_y; ++p) {
      const int64_t t = given.y ? p : grid.id()[p];
      if (!given.y && p + 8 < given.num_y) {  // targets come by cell: from anywhere
        const int64_t ahead = grid.id()[p + 8];
        __builtin_prefetch(given.target(ahead));
        for (int64_t i = 0; i < min2<int64_t>(k, 32); i += 8) __builtin_prefetch(out + ahead * k + i, 1);
      }
      if (few) answer(t, pile); else answer(t, heap);
    }
  }
  return GNNLAB_OK;
}

int knn_blocks(const Points& given, int64_t k, int64_t* out, int threads) {
  ByGraph graphs(given.num_x, given.graphs), own(given.y ? given.num_y : 0, given.graphs);
  int status = graphs.sort(given.graph_x, given.num_x, threads);
  if (!status && given.y) status = own.sort(given.graph_y, given.num_y, threads);
  if (status) return status;
  const ByGraph& targets = given.y ? own : graphs;
  Blocks blocks(given.x, given.dim, graphs);
  if ((status = blocks.build())) return status;
  constexpr int64_t kGroup = Blocks::kGroup;
  const int team = useful_threads(threads, given.num_y * 64 * max2<int64_t>(given.dim, 1));
  Scratch<double> distance(team * kGroup * k);
  Scratch<int32_t> id(team * kGroup * k);
  if (!distance.data || !id.data) return no_memory();
  const int64_t pieces = pieces_for(given.num_y, team);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic, 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    Best best[kGroup];
    for (int64_t i = 0; i < kGroup; ++i) {
      const int64_t at = (team_rank() * kGroup + i) * k;
      best[i] = Best(distance.data + at, id.data + at, k);
    }
    const int64_t first = given.num_y * piece / pieces, last = given.num_y * (piece + 1) / pieces;
    each_group(targets, first, last, [&](int64_t p, int64_t count, int64_t g) {
      const double* q[kGroup];
      for (int64_t i = 0; i < count; ++i) {
        q[i] = given.target(targets.id.data[p + i]);
        best[i].clear();
      }
      blocks.visit(g, q, count, [&](int64_t t, const int32_t* ids, const double* d2, int64_t m) {
        const int32_t same = given.same(targets.id.data[p + t]);
        for (int64_t j = 0; j < m; ++j)
          if (d2[j] <= best[t].worst() && ids[j] != same) best[t].offer(d2[j], ids[j]);
      });
      for (int64_t i = 0; i < count; ++i) {
        best[i].finish();
        write_best(best[i], k, out + targets.id.data[p + i] * k);
      }
      return true;
    });
  }
  return GNNLAB_OK;
}

}  // namespace

int knn(const double* x, const int64_t* graph_x, int64_t num_x, const double* y, const int64_t* graph_y,
        int64_t num_y, int64_t num_graphs, int64_t dim, int64_t k, int skip_same, int64_t* out, int threads) {
  const Points given{x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim, skip_same != 0};
  const int status = check_points(given);
  if (status || k == 0 || num_y == 0) return status;
  if (num_x == 0) {
    for (int64_t i = 0; i < num_y * k; ++i) out[i] = -1;
    return GNNLAB_OK;
  }
  return dim == 1   ? knn_grid<1>(given, k, out, threads)
         : dim == 2 ? knn_grid<2>(given, k, out, threads)
         : dim == 3 ? knn_grid<3>(given, k, out, threads)
                    : knn_blocks(given, k, out, threads);
}

}  // namespace gnnlab::GNNLAB_NS
