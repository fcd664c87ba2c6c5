// Partition: shares nodes out over parts of about one size, so that few edges join different parts.
//
// Algorithm: parts are grown one after the other, breadth first, each from the edge of what is grown
//   already. Then all nodes are streamed a few times in that order (linear deterministic greedy of
//   Stanton and Kliot, KDD 2012; again and again: Nishimura and Ugander, KDD 2013): a node goes to the
//   part with room whose neighbours * (capacity - size) is largest. All in integers: one result on
//   every machine.
// Reads the edges 2 * (2 + passes) times; memory: 1 word and a byte per node, 3 words per part. One thread: each
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

// Writes all nodes in the order of growing: `share` nodes per part.
template <typename I>
void grow(const gnnlab_rows& rows, const gnnlab_rows& back, int64_t share, int64_t* order, uint8_t* met) {
  const int64_t n = rows.num_rows;
  int64_t tail = 0, scanned = 0, lowest = 0;
  for (int64_t begin = 0; begin < n; begin = tail) {
    const int64_t limit = min2(begin + share, n);
    int64_t head = begin, wanted = 0;
    const auto meet = [&](int64_t u) {
      if (met[u] || tail >= wanted) return;
      met[u] = 1;
      order[tail++] = u;
    };
    while (tail < limit) {
      if (head < tail) {
        wanted = limit;
        each_neighbour<I>(rows, order[head], meet);
        each_neighbour<I>(back, order[head++], meet);
        continue;
      }
      wanted = tail + 1;  // one node to go on from: beside the oldest that has a new neighbour
      for (; scanned < tail; ++scanned) {
        each_neighbour<I>(rows, order[scanned], meet);
        each_neighbour<I>(back, order[scanned], meet);
        if (tail == wanted) break;
      }
      while (tail < wanted) meet(lowest++);
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
  const int64_t share = max2<int64_t>((n + num_parts - 1) / num_parts, 1);
  for (int64_t v = 0; v < n; ++v) met.data[v] = 0;
  for (int64_t p = 0; p < num_parts; ++p) size.data[p] = votes.data[p] = 0;
  grow<I>(rows, back, share, order.data, met.data);
  for (int64_t i = 0; i < n; ++i) ++size.data[part[order.data[i]] = i / share];
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t v = order.data[i], old = part[v];
      --size.data[old];
      int64_t count = 0;
      const auto vote = [&](int64_t u) {
        if (u == v) return;
        if (votes.data[part[u]]++ == 0) touched.data[count++] = part[u];
      };
      each_neighbour<I>(rows, v, vote);
      each_neighbour<I>(back, v, vote);
      int64_t best = old, score = 0;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t p = touched.data[t], now = votes.data[p] * (capacity - size.data[p]);
        votes.data[p] = 0;
        if (now > score || (now == score && now > 0 && p < best)) {
          score = now;
          best = p;
        }
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
