// Chunks: how the edge kernels walk over rows, and how long rows are put together.
//
// A chunk is a run of whole rows, few enough edges for the first cache, or one block of kBlock edges
// of a longer row. Kernels work on a chunk in stages with buffers in between: the irregular reads of
// a stage then overlap, and vectors are never read back before they have left the store queue.
// A block of a long row leaves its partial result in a slot of scratch memory; once all threads are
// done the slots are combined in order. So results do not depend on where threads take over.
#pragma once

#include "pages.h"
#include "parallel.h"

namespace gnnlab::GNNLAB_NS {

struct Chunk {
  int64_t first, last;  // rows
  int64_t begin, end;   // places
  int64_t slot;         // of a block; -1 for whole rows
};

// Places of a row inside the chunk.
inline int64_t row_begin(const gnnlab_rows& rows, const Chunk& c, int64_t row) {
  return max2(rows.indptr[row], c.begin);
}
inline int64_t row_end(const gnnlab_rows& rows, const Chunk& c, int64_t row) {
  return min2(rows.indptr[row + 1], c.end);
}

// Blocks of long rows are at least kBlock apart, but for the last of a row: it has slots of its own.
inline int64_t slot_of(int64_t begin, bool last) { return 2 * (begin / kBlock) + (last ? 1 : 0); }
inline int64_t num_slots(const gnnlab_rows& rows) {
  return rows.num_edges > kBlock ? 2 * (rows.num_edges / kBlock + 1) : 0;
}
// Most edges that a chunk can have.
inline int64_t chunk_room(const gnnlab_rows& rows) { return min2(rows.num_edges, kBlock); }

inline Cut cut_of(const gnnlab_rows& rows, int t, int pieces) {
  if (t == 0) return {0, 0};
  if (t == pieces) return {rows.num_rows, 0};
  const int64_t steps = rows.num_rows + rows.num_edges;
  return cut_at(rows.indptr, rows.num_rows, steps / pieces * t + steps % pieces * t / pieces);
}

// Calls use(chunk) for everything between two cuts; chunks of several rows have at most `target`
// edges and rows. Returns whether there was a long row.
template <class Use>
bool walk(const gnnlab_rows& rows, Cut from, Cut to, int64_t target, const Use& use) {
  const int64_t* indptr = rows.indptr;
  bool any_long = false;
  int64_t row = from.row, block = from.block;
  while (row < to.row || (row == to.row && block < to.block)) {
    const int64_t begin = indptr[row], end = indptr[row + 1];
    if (end - begin > kBlock) {
      any_long = true;
      const int64_t at = begin + block * kBlock, stop = min2(at + kBlock, end);
      use(Chunk{row, row + 1, at, stop, slot_of(at, stop == end)});
      ++block;
      if (stop == end) {
        ++row;
        block = 0;
      }
      continue;
    }
    int64_t last = row + 1;
    const int64_t limit = min2(to.row, row + target);
    while (last < limit && indptr[last + 1] - begin <= target) ++last;
    use(Chunk{row, last, begin, indptr[last], -1});
    row = last;
  }
  return any_long;
}

// Deals `pieces` equal parts of the walk out to threads: work(thread, piece, from, to) -> bool.
// Returns whether one of them said true.
template <class Work>
bool on_pieces(const gnnlab_rows& rows, int pieces, int team, const Work& work) {
  const auto share = [&](int t) {
    bool any = false;
    const int64_t n = pieces;
    for (int64_t p = n * t / team; p < n * (t + 1) / team; ++p) {
      const int piece = static_cast<int>(p);
      any |= work(t, piece, cut_of(rows, piece, pieces), cut_of(rows, piece + 1, pieces));
    }
    return any;
  };
  if (team == 1) return share(0);
  int any = 0;
#pragma omp parallel for num_threads(team) schedule(static, 1) reduction(| : any)
  for (int t = 0; t < team; ++t) any |= share(t) ? 1 : 0;
  return any != 0;
}
// One piece for each thread: work(thread, from, to).
template <class Work>
bool on_threads(const gnnlab_rows& rows, int team, const Work& work) {
  return on_pieces(rows, team, team, [&](int t, int, Cut from, Cut to) { return work(t, from, to); });
}

// Calls use(row, slot of block b, b, number of blocks) for the blocks of long rows, in order.
template <class Use>
void for_each_long(const gnnlab_rows& rows, const Use& use) {
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    const int64_t begin = rows.indptr[row], end = rows.indptr[row + 1];
    if (end - begin <= kBlock) continue;
    const int64_t blocks = (end - begin + kBlock - 1) / kBlock;
    for (int64_t b = 0; b < blocks; ++b)
      use(row, slot_of(begin + b * kBlock, b + 1 == blocks), b, blocks);
  }
}

// Keeps the compiler from turning a loop of single reads or writes into gather and scatter
// instructions: measured on Zen 4, they take two to four times as long.
inline __attribute__((always_inline)) int64_t one_by_one(int64_t index) {
  __asm__("" : "+r"(index));
  return index;
}

// Index arrays; NULL means place k itself.
template <typename I>
inline int64_t listed(const I* at, int64_t k) { return at ? static_cast<int64_t>(at[k]) : k; }

}  // namespace gnnlab::GNNLAB_NS
