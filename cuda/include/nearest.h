// Memory of the neighbour search: ids of unknown number, and the k nearest of a stream, any k.
#pragma once

#include "parallel.h"

namespace gnnlab::GNNLAB_NS {

// An array that grows; false when memory ran out.
struct Ids {
  int32_t* data = nullptr;
  int64_t size = 0, room = 0;
  bool reserve(int64_t more) {
    if (size + more <= room) return true;
    const int64_t wanted = max2<int64_t>(size + more, 2 * room + 1024);
    void* grown = std::realloc(data, static_cast<size_t>(wanted) * sizeof(int32_t));
    if (!grown) return false;
    data = static_cast<int32_t*>(grown);
    room = wanted;
    return true;
  }
};

// The k least of the pairs (distance, id) that are offered. Few are kept sorted, many as a heap.
class Best {
 public:
  Best() = default;
  Best(double* distance, int32_t* id, int64_t k) : d_(distance), id_(id), k_(k) {}
  void clear() { n_ = 0; }
  int64_t size() const { return n_; }
  const int32_t* id() const { return id_; }
  bool full() const { return n_ == k_; }
  // Above this nothing is taken; infinity until there are k.
  double worst() const { return full() ? d_[k_ > kSorted ? 0 : k_ - 1] : __builtin_inf(); }

  void offer(double d, int32_t id) {
    if (k_ > kSorted) return heap_offer(d, id);
    int64_t i = n_;
    if (full()) {
      if (!less(d, id, k_ - 1)) return;
      i = k_ - 1;
    } else {
      ++n_;
    }
    for (; i > 0 && less(d, id, i - 1); --i) move(i, i - 1);
    set(i, d, id);
  }
  // Puts them in ascending order.
  void finish() {
    if (k_ <= kSorted) return;
    const int64_t n = n_;
    while (n_ > 1) {
      const double d = d_[n_ - 1];
      const int32_t id = id_[n_ - 1];
      move(n_ - 1, 0);
      --n_;
      sink(d, id);
    }
    n_ = n;
  }

 private:
  static constexpr int64_t kSorted = 48;
  bool less(double d, int32_t id, int64_t i) const { return d < d_[i] || (d == d_[i] && id < id_[i]); }
  void set(int64_t i, double d, int32_t id) {
    d_[i] = d;
    id_[i] = id;
  }
  void move(int64_t to, int64_t from) { set(to, d_[from], id_[from]); }
  void heap_offer(double d, int32_t id) {
    if (full()) {
      if (less(d, id, 0)) sink(d, id);
      return;
    }
    int64_t i = n_++;
    for (; i > 0 && !less(d, id, (i - 1) / 2); i = (i - 1) / 2) move(i, (i - 1) / 2);
    set(i, d, id);
  }
  // Puts a pair at the root of the heap and lets it sink.
  void sink(double d, int32_t id) {
    int64_t i = 0;
    for (int64_t child = 1; child < n_; child = 2 * i + 1) {
      if (child + 1 < n_ && less(d_[child], id_[child], child + 1)) ++child;
      if (!less(d, id, child)) break;
      move(i, child);
      i = child;
    }
    set(i, d, id);
  }

  double* d_ = nullptr;
  int32_t* id_ = nullptr;
  int64_t k_ = 0, n_ = 0;
};

}  // namespace gnnlab::GNNLAB_NS
