// Radius: all pairs of points closer than r.
//
// Algorithm: up to three dimensions a uniform grid (grid.h) with cells of edge r, so that the 3^d cells
//   around a target hold all it can find; above that all pairs of a graph, in tiles (blocks.h).
// Targets are visited cell by cell, so that what they read is in cache, and leave their ids, sorted, in
//   buffers; found_write copies those to the target's own place. Neither the grid nor the number of
//   threads shows in the result.
// Rounding: r becomes the least d2 whose root is not below r, so comparing squares is comparing
//   distances. Cells are 1e-6 wider than r, more than the number of a cell can be off.
// Reads about 3^d cells * 8 d bytes per point in them from cache, writes 4 and then 16 bytes an edge.
// Measured by `gnnlab bench neighbors`.
#include "families.h"
#include "nearest.h"
#include "neighbors.h"
#include "pages.h"

namespace gnnlab::GNNLAB_NS {
namespace {

// The least d2 with sqrt(d2) >= r; infinity when there is none.
double least_outside(double r) {
  const auto shifted = [](double v, int64_t by) {
    int64_t bits;
    __builtin_memcpy(&bits, &v, sizeof bits);
    bits += by;
    __builtin_memcpy(&v, &bits, sizeof bits);
    return v;
  };
  if (__builtin_sqrt(__DBL_MAX__) < r) return kInfinity;
  double t = min2(r * r, __DBL_MAX__);
  while (t > 0 && __builtin_sqrt(shifted(t, -1)) >= r) t = shifted(t, -1);
  while (__builtin_sqrt(t) < r) t = shifted(t, 1);
  return t;
}

struct Piece {
  Ids ids;
  int64_t first, last;  // positions in the order of visit
  bool failed;
};

// Result of a radius search on its way to the caller.
struct Found {
  int64_t num, pieces;
  Piece* piece;
  int32_t* order;  // target at each position
};

void discard(Found* found) {
  if (!found) return;
  if (found->piece)
    for (int64_t p = 0; p < found->pieces; ++p) std::free(found->piece[p].ids.data);
  std::free(found->piece);
  std::free(found->order);
  std::free(found);
}

Found* make_found(int64_t num, const int32_t* order, int64_t pieces) {
  Found* found = static_cast<Found*>(std::calloc(1, sizeof(Found)));
  if (!found) return nullptr;
  found->num = num;
  found->pieces = pieces;
  found->piece = static_cast<Piece*>(std::calloc(static_cast<size_t>(pieces), sizeof(Piece)));
  found->order = static_cast<int32_t*>(std::malloc(static_cast<size_t>(max2<int64_t>(num, 1)) * sizeof(int32_t)));
  if (!found->piece || !found->order) {
    discard(found);
    return nullptr;
  }
  for (int64_t i = 0; i < num; ++i) found->order[i] = order[i];
  for (int64_t p = 0; p < pieces; ++p) {
    found->piece[p].first = num * p / pieces;
    found->piece[p].last = num * (p + 1) / pieces;
  }
  return found;
}

template <int D>
bool radius_of(const Grid<D>& grid, const double* q, int64_t g, int32_t same, double limit, Ids& ids) {
  const Box<D>& box = grid.box(g);
  if (box.n[0] == 0) return true;
  double v[D];
  int32_t at[D];
  box.place(q, v);
  for (int d = 0; d < D; ++d) at[d] = static_cast<int32_t>(__builtin_floor(v[d]));
  bool fits = true;
  rows_near<D>(box, g, at, 1, [&](const Key& k, int32_t lo, int32_t hi) {
    grid.row(k, lo, hi, [&](int64_t begin, int64_t end) {
      if (!fits || !(fits = ids.reserve(end - begin + kStep))) return;
      for (int64_t p = begin; p < end; p += kStep) {
        Eight d2;
        squares<D>(grid, q, p, d2);
        ids.size += keep(d2, grid.id() + p, end - p, limit, false, same, ids.data + ids.size, nullptr);
      }
    });
  });
  return fits;
}

// Deals the pieces out to threads; false when memory ran out in one of them.
template <class Work>
bool fill(Found& found, int team, const Work& work) {
  int failed = 0;
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic, 1) reduction(| : failed)
  for (int64_t p = 0; p < found.pieces; ++p) failed |= work(found.piece[p]) ? 0 : 1;
  return !failed;
}

// Sorts the ids that a target has added behind `from`, and counts them.
bool close_list(Piece& piece, int64_t from, int64_t* count) {
  const int64_t n = piece.ids.size - from;
  if (!piece.ids.reserve(n + 32)) return false;
  sort_ids(piece.ids.data + from, n, piece.ids.data + piece.ids.size);
  *count = n;
  return true;
}

template <int D>
int radius_grid(const Points& given, double r, int64_t* counts, Found** result, int threads) {
  ByGraph graphs(given.num_x, given.graphs);
  int status = graphs.sort(given.graph_x, given.num_x, threads);
  if (status) return status;
  Grid<D> grid(given.x, given.num_x, graphs);
  Scratch<double> edge(given.graphs);
  if (!edge.data) return no_memory();
  for (int64_t g = 0; g < given.graphs; ++g) edge.data[g] = 0.5 * r * (1 + kMargin);
  if ((status = grid.measure()) || (status = grid.build(edge.data, threads))) return status;
  ByGraph targets(given.y ? given.num_y : 0, given.graphs);
  if (given.y && (status = targets.sort(given.graph_y, given.num_y, threads))) return status;
  const int team = useful_threads(threads, 64 * given.num_y);
  Found* found = *result = make_found(given.num_y, given.y ? targets.id.data : grid.id(), pieces_for(given.num_y, team));
  if (!found) return no_memory();
  const double limit = least_outside(r);
  const bool done = fill(*found, team, [&](Piece& piece) {
    for (int64_t p = piece.first; p < piece.last; ++p) {
      const int64_t t = found->order[p], from = piece.ids.size;
      if (p + 16 < piece.last) {
        __builtin_prefetch(counts + found->order[p + 16], 1);
        __builtin_prefetch(given.target(found->order[p + 16]));
      }
      if (!radius_of<D>(grid, given.target(t), given.graph(t), given.same(t), limit, piece.ids)) return false;
      if (!close_list(piece, from, counts + t)) return false;
    }
    return true;
  });
  return done ? GNNLAB_OK : no_memory();
}

int radius_blocks(const Points& given, double r, int64_t* counts, Found** result, int threads) {
  ByGraph graphs(given.num_x, given.graphs), own(given.y ? given.num_y : 0, given.graphs);
  int status = graphs.sort(given.graph_x, given.num_x, threads);
  if (!status && given.y) status = own.sort(given.graph_y, given.num_y, threads);
  if (status) return status;
  const ByGraph& targets = given.y ? own : graphs;
  Blocks blocks(given.x, given.dim, graphs);
  if ((status = blocks.build())) return status;
  const int team = useful_threads(threads, given.num_y * 64 * max2<int64_t>(given.dim, 1));
  Found* found = *result = make_found(given.num_y, targets.id.data, pieces_for(given.num_y, team));
  if (!found) return no_memory();
  const double limit = least_outside(r);
  const bool done = fill(*found, team, [&](Piece& piece) {
    Ids list[Blocks::kGroup];
    const bool good = each_group(targets, piece.first, piece.last, [&](int64_t first, int64_t count, int64_t g) {
      const double* q[Blocks::kGroup];
      for (int64_t i = 0; i < count; ++i) q[i] = given.target(found->order[first + i]);
      bool fits = true;
      blocks.visit(g, q, count, [&](int64_t t, const int32_t* id, const double* d2, int64_t m) {
        Ids& ids = list[t];
        if (!fits || !(fits = ids.reserve(m + 1))) return;
        const int32_t same = given.same(found->order[first + t]);
        for (int64_t j = 0; j < m; ++j) {
          ids.data[ids.size] = id[j];
          ids.size += (d2[j] < limit) & (id[j] != same);
        }
      });
      for (int64_t i = 0; i < count && fits; ++i) {  // points came in order: nothing to sort
        if (!(fits = piece.ids.reserve(list[i].size))) break;
        for (int64_t j = 0; j < list[i].size; ++j) piece.ids.data[piece.ids.size++] = list[i].data[j];
        counts[found->order[first + i]] = list[i].size;
        list[i].size = 0;
      }
      return fits;
    });
    for (Ids& ids : list) std::free(ids.data);
    return good;
  });
  return done ? GNNLAB_OK : no_memory();
}

}  // namespace

int radius(const double* x, const int64_t* graph_x, int64_t num_x, const double* y, const int64_t* graph_y,
           int64_t num_y, int64_t num_graphs, int64_t dim, double r, int skip_same, int64_t* indptr,
           void** found, int threads) {
  const Points given{x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim, skip_same != 0};
  *found = nullptr;
  indptr[0] = 0;
  int status = check_points(given);
  if (status) return status;
  if (num_x == 0 || num_y == 0) {
    for (int64_t t = 0; t < num_y; ++t) indptr[t + 1] = 0;
    return GNNLAB_OK;
  }
  Found* result = nullptr;
  int64_t* counts = indptr + 1;
  status = dim == 1   ? radius_grid<1>(given, r, counts, &result, threads)
           : dim == 2 ? radius_grid<2>(given, r, counts, &result, threads)
           : dim == 3 ? radius_grid<3>(given, r, counts, &result, threads)
                      : radius_blocks(given, r, counts, &result, threads);
  if (status) {
    discard(result);
    return status;
  }
  for (int64_t t = 0; t < num_y; ++t) indptr[t + 1] += indptr[t];
  *found = result;
  return GNNLAB_OK;
}

int found_write(void* handle, const int64_t* indptr, int64_t* source, int64_t* target, int threads) {
  Found* found = static_cast<Found*>(handle);
  if (source) {
    const int64_t edges = indptr[found->num];
    advise_huge_pages(source, 8 * edges);
    advise_huge_pages(target, 8 * edges);
    const int team = useful_threads(threads, 4 * edges);
    fill(*found, team, [&](Piece& piece) {
      const int32_t *id = piece.ids.data, *order = found->order;
      for (int64_t p = piece.first; p < piece.last; ++p) {
        const int64_t t = order[p];
        if (p + 32 < piece.last) {  // the places are far from one another
          __builtin_prefetch(indptr + order[p + 32]);
          const int64_t ahead = indptr[order[p + 16]];
          for (int64_t line = 0; line < 24; line += 8) {
            __builtin_prefetch(source + ahead + line, 1);
            __builtin_prefetch(target + ahead + line, 1);
          }
        }
        for (int64_t e = indptr[t]; e < indptr[t + 1]; ++e) {
          source[e] = *id++;
          target[e] = t;
        }
      }
      return true;
    });
  }
  discard(found);
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
