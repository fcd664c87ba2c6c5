// Partition: shares nodes out over parts of about one size, so that few edges join different parts.
//
// Algorithm: linear deterministic greedy streaming (Stanton and Kliot, KDD 2012), nodes in breadth-first
//   order, streamed again a few times (Nishimura and Ugander, KDD 2013). A node goes to the part with
//   room whose neighbours * (capacity - size) is largest; a node without placed neighbours stays
//   where it is, or goes to the part being filled. All in integers: one result on every machine.
// Reads the edges 2 * (1 + passes) times; memory: 6 words per node and 2 per part. One thread: each
//   choice needs those before it. Measured by: gnnlab.bench.sampling.
#include "families.h"
#include "parallel.h"

namespace gnnlab::GNNLAB_NS {
namespace {

// Calls use(u) for each neighbour u of v, along edges of both directions.
template <typename I, typename Use>
inline void each_neighbour(const gnnlab_rows& rows, int64_t v, const Use& use) {
  const I* col = static_cast<const I*>(rows.col);
  for (int64_t p = rows.indptr[v]; p < rows.indptr[v + 1]; ++p) use(static_cast<int64_t>(col[p]));
}

// Writes all nodes in breadth-first order, beginning anew at the lowest node not met yet.
template <typename I>
void breadth_first(const gnnlab_rows& rows, const gnnlab_rows& back, int64_t* order, uint8_t* met) {
  int64_t head = 0, tail = 0;
  const auto meet = [&](int64_t u) {
    if (met[u]) return;
    met[u] = 1;
    order[tail++] = u;
  };
  for (int64_t first = 0; first < rows.num_rows; ++first) {
    meet(first);
    for (; head < tail; ++head) {
      each_neighbour<I>(rows, order[head], meet);
      each_neighbour<I>(back, order[head], meet);
    }
  }
}

template <typename I>
int stream(const gnnlab_rows& rows, const gnnlab_rows& back, int64_t num_parts, int64_t capacity,
           int64_t passes, int64_t* part) {
  const int64_t n = rows.num_rows;
  Scratch<int64_t> order(n), size(num_parts), votes(num_parts), touched(num_parts);
  Scratch<uint8_t> met(n);
  if (!order.data || !size.data || !votes.data || !touched.data || !met.data) return no_memory();
  for (int64_t v = 0; v < n; ++v) {
    met.data[v] = 0;
    part[v] = -1;
  }
  for (int64_t p = 0; p < num_parts; ++p) size.data[p] = votes.data[p] = 0;
  breadth_first<I>(rows, back, order.data, met.data);
  int64_t open = 0;  // the part being filled
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t v = order.data[i], old = part[v];
      if (old >= 0) --size.data[old];
      int64_t count = 0;
      const auto vote = [&](int64_t u) {
        if (u == v || part[u] < 0) return;
        if (votes.data[part[u]]++ == 0) touched.data[count++] = part[u];
      };
      each_neighbour<I>(rows, v, vote);
      each_neighbour<I>(back, v, vote);
      int64_t best = -1, score = 0;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t p = touched.data[t], now = votes.data[p] * (capacity - size.data[p]);
        votes.data[p] = 0;
        if (now > score || (now == score && now > 0 && p < best)) {
          score = now;
          best = p;
        }
      }
      if (best < 0) best = old;
      if (best < 0) {
        while (size.data[open] >= capacity) ++open;
        best = open;
      }
      part[v] = best;
      ++size.data[best];
    }
  }
  return GNNLAB_OK;
}

}  // namespace

int partition(const gnnlab_rows* rows, const gnnlab_rows* back, int64_t num_parts, int64_t capacity,
              int64_t passes, int64_t* part) {
  return rows->index_bytes == 4 ? stream<int32_t>(*rows, *back, num_parts, capacity, passes, part)
                                : stream<int64_t>(*rows, *back, num_parts, capacity, passes, part);
}

}  // namespace gnnlab::GNNLAB_NS
