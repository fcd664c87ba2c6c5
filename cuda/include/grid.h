// Points sorted by graph, and a uniform grid over the points of each graph.
//
// Coordinates are halved before they are subtracted, so that no extent overflows. Where the grid of
// the wanted cells is small (at most two cells per point) cells are numbered row by row and a row's
// neighbours are one range; otherwise only cells that hold points exist, found by hashing. Memory is
// O(N) either way. An axis has at most 2^26 cells; where that is too few, cells are larger.
#pragma once

#include "counting_sort.h"

namespace gnnlab::GNNLAB_NS {

// Points by graph, in the caller's order inside a graph.
struct ByGraph {
  Scratch<int64_t> ptr;  // graphs + 1
  Scratch<int32_t> id;   // the point at each position
  int64_t graphs;

  ByGraph(int64_t num, int64_t num_graphs) : ptr(num_graphs + 1), id(num), graphs(num_graphs) {}

  int sort(const int64_t* graph, int64_t num, int threads) {
    if (!ptr.data || !id.data) return no_memory();
    if (graph)
      return counting_sort<int64_t, int32_t>(graph, nullptr, num, graphs, 0, ptr.data, nullptr, id.data, threads);
    for (int64_t i = 0; i < num; ++i) id.data[i] = static_cast<int32_t>(i);
    ptr.data[0] = 0;
    ptr.data[1] = num;
    return GNNLAB_OK;
  }
  int64_t size(int64_t g) const { return ptr.data[g + 1] - ptr.data[g]; }
};

template <int D>
struct Box {
  double low[D], extent[D];  // halved, like all lengths here
  double edge[D], inv[D];    // of a cell
  int64_t base;              // of the graph's first cell
  int32_t n[D];              // cells on each axis; 0 for a graph without points

  // Where a point is, in cells from the lowest corner; far outside it stops at +-2^27.
  void place(const double* x, double* v) const {
    for (int d = 0; d < D; ++d) {
      const double at = (0.5 * x[d] - low[d]) * inv[d];
      v[d] = min2(max2(at, -134217728.0), 134217728.0);
    }
  }
  int32_t cell(double v, int d) const {
    if (!(v > 0)) return 0;
    const int32_t c = static_cast<int32_t>(v);
    return c < n[d] ? c : n[d] - 1;
  }
};

struct Key {
  int32_t graph, at[3];
  bool operator==(const Key& o) const {
    return graph == o.graph && at[0] == o.at[0] && at[1] == o.at[1] && at[2] == o.at[2];
  }
  uint64_t hash() const {
    uint64_t h = static_cast<uint32_t>(graph) * 0x9E3779B97F4A7C15ull;
    for (int d = 0; d < 3; ++d) h = (h ^ (h >> 29) ^ static_cast<uint32_t>(at[d])) * 0xBF58476D1CE4E5B9ull;
    return h ^ (h >> 32);
  }
};

template <int D>
class Grid {
 public:
  Grid(const double* x, int64_t num, const ByGraph& graphs)
      : box_(graphs.graphs), begin_(2 * num + graphs.graphs + 1), id_(num + 8), pos_(D * num + 8), x_(x),
        num_(num), graphs_(graphs) {}
  Grid(const Grid&) = delete;
  Grid& operator=(const Grid&) = delete;
  ~Grid() { forget(); }

  // Finds the bounding boxes. Call once, before build.
  int measure() {
    if (!box_.data || !begin_.data || !id_.data || !pos_.data) return no_memory();
    for (int64_t g = 0; g < graphs_.graphs; ++g) {
      Box<D>& b = box_.data[g];
      double high[D];
      for (int d = 0; d < D; ++d) b.low[d] = high[d] = 0;
      for (int64_t p = graphs_.ptr.data[g]; p < graphs_.ptr.data[g + 1]; ++p) {
        const double* q = x_ + D * static_cast<int64_t>(graphs_.id.data[p]);
        const bool first = p == graphs_.ptr.data[g];
        for (int d = 0; d < D; ++d) {
          b.low[d] = first ? q[d] : min2(b.low[d], q[d]);
          high[d] = first ? q[d] : max2(high[d], q[d]);
        }
      }
      for (int d = 0; d < D; ++d) {
        b.low[d] *= 0.5;
        b.extent[d] = 0.5 * high[d] - b.low[d];
      }
    }
    return GNNLAB_OK;
  }

  // Sorts the points into cells of at least the wanted edge (halved), one for each graph.
  int build(const double* wanted, int threads) {
    double cells = 0;
    for (int64_t g = 0; g < graphs_.graphs; ++g) {
      Box<D>& b = box_.data[g];
      double own = 1;
      for (int d = 0; d < D; ++d) {
        b.edge[d] = max2(max2(wanted[g], b.extent[d] / 67108864.0), 1e-290);
        b.inv[d] = b.extent[d] > 0 ? 1 / b.edge[d] : 0;
        b.n[d] = graphs_.size(g) ? static_cast<int32_t>(b.extent[d] * b.inv[d]) + 1 : 0;
        own *= b.n[d];
      }
      b.base = cells < 4e18 ? static_cast<int64_t>(cells) : 0;
      cells += own;
    }
    Scratch<int32_t> key(num_);
    if (!key.data) return no_memory();
    dense_ = cells <= 2.0 * static_cast<double>(num_) + static_cast<double>(graphs_.graphs) && cells < 2147483647.0;
    num_cells_ = static_cast<int64_t>(cells);
    if (!dense_ && !hash_cells(key.data)) return no_memory();
    if (dense_) each_point([&](int64_t p, const Key& k) { key.data[p] = static_cast<int32_t>(number(k)); });
    const int status = counting_sort<int32_t, int32_t>(key.data, graphs_.id.data, num_, num_cells_, num_,
                                                       begin_.data, id_.data, nullptr, threads);
    if (status) return status;
    for (int i = 0; i < 8; ++i) {  // read with the last points, never used
      pos_.data[D * num_ + i] = 0;
      id_.data[num_ + i] = 0;
    }
    for (int64_t p = 0; p < num_; ++p) {
      if (p + 16 < num_) __builtin_prefetch(x_ + D * static_cast<int64_t>(id_.data[p + 16]));
      for (int d = 0; d < D; ++d) pos_.data[d * num_ + p] = x_[D * static_cast<int64_t>(id_.data[p]) + d];
    }
    return GNNLAB_OK;
  }

  // Calls use(begin, end) for the points of cells at[0], ..., last axis from lo to hi.
  template <class Use>
  void row(Key k, int32_t lo, int32_t hi, const Use& use) const {
    k.at[D - 1] = lo;
    if (dense_) {
      const int64_t first = number(k);
      use(begin_.data[first], begin_.data[first + (hi - lo) + 1]);
      return;
    }
    for (; k.at[D - 1] <= hi; ++k.at[D - 1]) {
      const int32_t c = slots_[slot(k)];
      if (c >= 0) use(begin_.data[c], begin_.data[c + 1]);
    }
  }
  // How many points a point of each graph finds in its own cell: the geometric mean, roughly. (A plain
  // mean would be that of the fullest cell, which may hold many points at one place.)
  void crowding(double* mean) const {
    for (int64_t g = 0; g < graphs_.graphs; ++g) mean[g] = 0;
    each_point([&](int64_t, const Key& k) {
      row(k, k.at[D - 1], k.at[D - 1], [&](int64_t b, int64_t e) {
        const int log = 63 - __builtin_clzll(static_cast<uint64_t>(e - b) | 1);
        mean[k.graph] += log + static_cast<double>(e - b) / static_cast<double>(int64_t{1} << log) - 1;
      });
    });
    for (int64_t g = 0; g < graphs_.graphs; ++g)
      mean[g] = __builtin_exp(0.6931471805599453 * mean[g] / static_cast<double>(max2<int64_t>(graphs_.size(g), 1)));
  }

  const Box<D>& box(int64_t g) const { return box_.data[g]; }
  const int32_t* id() const { return id_.data; }
  const double* pos(int d) const { return pos_.data + d * num_; }
  const ByGraph& graphs() const { return graphs_; }

 private:
  template <class Use>
  void each_point(const Use& use) const {
    for (int64_t g = 0; g < graphs_.graphs; ++g)
      for (int64_t p = graphs_.ptr.data[g]; p < graphs_.ptr.data[g + 1]; ++p) {
        double v[D];
        Key k{static_cast<int32_t>(g), {0, 0, 0}};
        box_.data[g].place(x_ + D * static_cast<int64_t>(graphs_.id.data[p]), v);
        for (int d = 0; d < D; ++d) k.at[d] = box_.data[g].cell(v[d], d);
        use(p, k);
      }
  }
  int64_t number(const Key& k) const {
    const Box<D>& b = box_.data[k.graph];
    int64_t c = k.at[0];
    for (int d = 1; d < D; ++d) c = c * b.n[d] + k.at[d];
    return b.base + c;
  }
  void forget() {
    std::free(slots_);
    std::free(keys_);
    slots_ = nullptr;
    keys_ = nullptr;
  }
  uint64_t slot(const Key& k) const {
    uint64_t s = k.hash() & mask_;
    while (slots_[s] >= 0 && !(keys_[slots_[s]] == k)) s = (s + 1) & mask_;
    return s;
  }
  bool hash_cells(int32_t* key) {
    forget();
    for (mask_ = 16; static_cast<int64_t>(mask_) < 2 * num_;) mask_ *= 2;
    slots_ = static_cast<int32_t*>(std::malloc(mask_ * sizeof(int32_t)));
    keys_ = static_cast<Key*>(std::malloc(static_cast<size_t>(max2<int64_t>(num_, 1)) * sizeof(Key)));
    if (!slots_ || !keys_) return false;
    for (uint64_t s = 0; s < mask_; ++s) slots_[s] = -1;
    --mask_;
    int32_t cells = 0;
    each_point([&](int64_t p, const Key& k) {
      const uint64_t s = slot(k);
      if (slots_[s] < 0) {
        keys_[cells] = k;
        slots_[s] = cells++;
      }
      key[p] = slots_[s];
    });
    num_cells_ = cells;
    return true;
  }

  Scratch<Box<D>> box_;
  Scratch<int64_t> begin_;  // of each cell
  Scratch<int32_t> id_;     // the point at each place, by cell; 8 more, so that eight can be read
  Scratch<double> pos_;     // its coordinates, axis by axis; likewise
  int32_t* slots_ = nullptr;  // hashed: the cell in each slot, -1 for none
  Key* keys_ = nullptr;       // of each cell
  uint64_t mask_ = 0;         // slots - 1
  int64_t num_cells_ = 0;
  bool dense_ = true;
  const double* x_;
  int64_t num_;
  const ByGraph& graphs_;
};

}  // namespace gnnlab::GNNLAB_NS
