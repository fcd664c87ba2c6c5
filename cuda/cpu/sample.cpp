// Sample: draws neighbours of nodes, and numbers the nodes found.
//
// Algorithm: a first call counts what each node will give, so that results have their size before
//   they are made. Drawing goes by batches of rows: their random words at once (Philox in vector
//   lanes, one lane per block of four words), then their places with a request for each line of
//   memory, then the neighbours. Without replacement: Floyd's algorithm (Bentley and Floyd, "A sample
//   of brilliance", CACM 30(9), 1987), one word per draw, the set of what is taken in 64 bits where
//   these suffice. Numbering: an array over all nodes, or a hash table with linear probing where that
//   is smaller. Neither is ever cleared: numbers of earlier lists lie below a base and count as none.
// A draw below `bound` is the high half of word * bound: one 32-bit word up to 65536, where the
//   chances of two outcomes differ by less than 1 in 65536, else 64 bits.
// Random words belong to (seed, hop, node), results to rows: neither threads nor order matter.
// Reads 2 cache lines per node and 1 per neighbour; writes 2 * r bytes per neighbour (r = 4 or 8).
// Sums: none. Measured by: gnnlab.bench.sampling.
#include "families.h"
#include "pages.h"
#include "parallel.h"
#include "philox.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace gnnlab::GNNLAB_NS {
namespace {

// ---- random words --------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 4;
#elif defined(__SSE2__)
constexpr int kLanes = 2;
#else
constexpr int kLanes = 1;
#endif

#if defined(__SSE2__)
using Lane = uint64_t __attribute__((vector_size(8 * kLanes)));

// Products of the low halves, as Philox wants them; what lies in the high halves does not count.
inline Lane multiply(Lane a, Lane b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Lane>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Lane>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  return reinterpret_cast<Lane>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#endif
}
#endif

// A block to compute: the counter but for the hop, which all blocks share.
struct Task {
  uint64_t node;
  uint64_t block;
};

// words[4 * t .. 4 * t + 3] = block t. `tasks` has room for kLanes - 1 more.
void draw_words(Task* tasks, int64_t count, uint32_t hop, uint64_t seed, uint32_t* words) {
#if defined(__SSE2__)
  for (int64_t t = count; t % kLanes; ++t) tasks[t] = {0, 0};
  const Lane zero{}, ma = zero + 0xD2511F53u, mb = zero + 0xCD9E8D57u, low = zero + 0xFFFFFFFFu;
  for (int64_t t = 0; t < count; t += kLanes) {
    Lane c0, c3;
    for (int l = 0; l < kLanes; ++l) {
      c0[l] = tasks[t + l].node;
      c3[l] = tasks[t + l].block;
    }
    Lane c1 = c0 >> 32, c2 = zero + hop;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Lane a = multiply(ma, c0), b = multiply(mb, c2);
      c0 = (b >> 32) ^ c1 ^ k0;
      c2 = (a >> 32) ^ c3 ^ k1;
      c1 = b;
      c3 = a;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const Lane first = (c0 & low) | (c1 << 32), second = (c2 & low) | (c3 << 32);
    for (int l = 0; l < kLanes && t + l < count; ++l) {
      const uint64_t pair[2] = {first[l], second[l]};
      __builtin_memcpy(words + 4 * (t + l), pair, sizeof pair);
    }
  }
#else
  for (int64_t t = 0; t < count; ++t) {
    const RandomBlock block = philox_block(tasks[t].node, hop, static_cast<uint32_t>(tasks[t].block), seed);
    for (int w = 0; w < 4; ++w) words[4 * t + w] = block.word[w];
  }
#endif
}

constexpr int64_t kOneWord = 65536;  // largest degree whose draws take one word

inline int64_t words_per_draw(int64_t degree) { return degree <= kOneWord ? 1 : 2; }

// A number below `bound` from the word, or the two words, of draw t.
inline int64_t below(const uint32_t* words, int64_t t, bool one, uint64_t bound) {
  if (one) return static_cast<int64_t>((words[t] * bound) >> 32);
  const uint64_t high = words[2 * t], low = words[2 * t + 1];
  return static_cast<int64_t>((high * bound + ((low * bound) >> 32)) >> 32);
}

// ---- places of one row ---------------------------------------------------------------------------

// Bits of a row's places that were taken; all zero between rows.
struct Taken {
  uint64_t* bits = nullptr;
  int64_t size = 0;
  Taken() = default;
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  ~Taken() { std::free(bits); }
  bool reserve(int64_t count) {
    const int64_t wanted = (count + 63) / 64;
    if (wanted <= size) return true;
    std::free(bits);
    bits = static_cast<uint64_t*>(std::calloc(static_cast<size_t>(wanted), sizeof(uint64_t)));
    size = bits ? wanted : 0;
    return bits != nullptr;
  }
};

constexpr int64_t kScanned = 64;  // up to this many draws are searched for a repeated one

// Floyd's algorithm: k of 0 .. degree - 1, each subset with the same chance.
template <typename I>
bool without_replacement(const uint32_t* words, int64_t degree, int64_t k, int64_t begin, I* place,
                         Taken& taken) {
  const bool one = degree <= kOneWord;
  const int64_t first = degree - k;
  if (k > kScanned) {
    if (!taken.reserve(degree)) return false;
    for (int64_t t = 0; t < k; ++t) {
      int64_t r = below(words, t, one, static_cast<uint64_t>(first + t + 1));
      if (taken.bits[r >> 6] >> (r & 63) & 1) r = first + t;
      taken.bits[r >> 6] |= uint64_t{1} << (r & 63);
      place[t] = static_cast<I>(begin + r);
    }
    for (int64_t t = 0; t < k; ++t) taken.bits[(static_cast<int64_t>(place[t]) - begin) >> 6] = 0;
    return true;
  }
  uint64_t seen = 0;  // of each number its last six bits: all there is up to degree 64
  for (int64_t t = 0; t < k; ++t) {
    int64_t r = below(words, t, one, static_cast<uint64_t>(first + t + 1));
    if (seen >> (r & 63) & 1) {
      bool again = degree <= 64;
      for (int64_t s = 0; s < t && !again; ++s) again = place[s] == static_cast<I>(begin + r);
      if (again) r = first + t;
    }
    seen |= uint64_t{1} << (r & 63);
    place[t] = static_cast<I>(begin + r);
  }
  return true;
}

// ---- rows ----------------------------------------------------------------------------------------

struct Job {
  const gnnlab_rows* rows;
  const int64_t* nodes;
  int64_t fanout;
  bool replace;
  uint64_t seed;
  uint32_t hop;
  const int64_t* indptr;
};

constexpr int64_t kBatch = 64;    // rows whose memory is asked for together
constexpr int64_t kTasks = 1024;  // blocks of random words at once, unless one row needs more

// Draws for rows begin .. end; false when memory ran out.
template <typename I>
bool draw_rows(const Job& job, int64_t begin, int64_t end, I* place, I* neighbour) {
  const int64_t* starts = job.rows->indptr;
  const I* col = static_cast<const I*>(job.rows->col);
  const int64_t room = max2(kTasks, (max2<int64_t>(job.fanout, 0) + 1) / 2);
  Scratch<Task> tasks(room + kLanes);
  Scratch<uint32_t> words(4 * room);
  Taken taken;
  if (!tasks.data || !words.data) return false;
  const int64_t base = job.indptr[0];
  for (int64_t i = begin; i < end;) {
    int64_t count = 0, last = i;
    for (; last < end && last - i < kBatch; ++last) {
      const int64_t node = job.nodes[last];
      const int64_t degree = starts[node + 1] - starts[node], k = job.indptr[last + 1] - job.indptr[last];
      if (k == degree && !job.replace) continue;
      const int64_t blocks = (k * words_per_draw(degree) + 3) / 4;
      if (count + blocks > room) break;
      for (int64_t b = 0; b < blocks; ++b)
        tasks.data[count++] = {static_cast<uint64_t>(node), static_cast<uint64_t>(b)};
    }
    draw_words(tasks.data, count, job.hop, job.seed, words.data);
    const uint32_t* next = words.data;
    for (int64_t row = i; row < last; ++row) {
      const int64_t node = job.nodes[row], start = starts[node];
      const int64_t degree = starts[node + 1] - start, k = job.indptr[row + 1] - job.indptr[row];
      I* mine = place + (job.indptr[row] - base);
      if (k == degree && !job.replace) {
        for (int64_t t = 0; t < k; ++t) mine[t] = static_cast<I>(start + t);
        for (int64_t t = 0; t < min2<int64_t>(k, 256); t += 64 / sizeof(I)) __builtin_prefetch(col + start + t);
        continue;
      }
      if (job.replace) {
        const bool one = degree <= kOneWord;
        for (int64_t t = 0; t < k; ++t)
          mine[t] = static_cast<I>(start + below(next, t, one, static_cast<uint64_t>(degree)));
      } else if (!without_replacement(next, degree, k, start, mine, taken)) {
        return false;
      }
      for (int64_t t = 0; t < k; ++t) __builtin_prefetch(col + mine[t]);
      next += (k * words_per_draw(degree) + 3) / 4 * 4;
    }
    for (int64_t p = job.indptr[i] - base; p < job.indptr[last] - base; ++p) neighbour[p] = col[place[p]];
    i = last;
  }
  return true;
}

template <typename I>
int draw(const Job& job, int64_t num_nodes, void* place, void* neighbour, int threads) {
  const int64_t work = 8 * (job.indptr[num_nodes] - job.indptr[0]);
  [[maybe_unused]] const int team =
      static_cast<int>(min2<int64_t>(useful_threads(threads, work), max2<int64_t>(num_nodes, 1)));
  int64_t failed = 0;
#pragma omp parallel num_threads(team) if (team > 1) reduction(+ : failed)
  {
    const int64_t crew = team_size(), me = team_rank();
    const int64_t begin = num_nodes / crew * me + min2(me, num_nodes % crew);
    const int64_t end = begin + num_nodes / crew + (me < num_nodes % crew ? 1 : 0);
    failed += !draw_rows(job, begin, end, static_cast<I*>(place), static_cast<I*>(neighbour));
  }
  return failed ? no_memory() : GNNLAB_OK;
}

// ---- numbers -------------------------------------------------------------------------------------

constexpr int64_t kAhead = 16;  // how far ahead a slot is asked for

// The number of each node, plus base + 1; up to the base where it has none.
template <typename I>
struct Direct {
  I* slots;
  I base;
  void ask(I id) const { __builtin_prefetch(slots + id, 1); }
  int64_t number(I id, int64_t* nodes, int64_t* count) const {
    if (slots[id] <= base) {
      nodes[*count] = id;
      slots[id] = static_cast<I>(base + ++*count);
    }
    return static_cast<int64_t>(slots[id] - base) - 1;
  }
};

// Pairs of a node and such a number, by linear probing; at most half of the slots are in use.
template <typename I>
struct Hashed {
  struct Slot {
    I id, number;
  };
  Slot* slots;
  I base;
  uint64_t mask;
  int shift;
  uint64_t home(I id) const { return (static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15u) >> shift; }
  void ask(I id) const { __builtin_prefetch(slots + home(id), 1); }
  int64_t number(I id, int64_t* nodes, int64_t* count) const {
    uint64_t at = home(id);
    while (slots[at].number > base && slots[at].id != id) at = (at + 1) & mask;
    if (slots[at].number <= base) {
      nodes[*count] = id;
      slots[at] = {id, static_cast<I>(base + ++*count)};
    }
    return static_cast<int64_t>(slots[at].number - base) - 1;
  }
};

}  // namespace

int sample_count(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes, int64_t fanout,
                 int replace, int64_t* indptr) {
  const int64_t* starts = rows->indptr;
  const uint64_t bound = static_cast<uint64_t>(rows->num_rows);
  int64_t sum = indptr[0];
  for (int64_t i = 0; i < num_nodes; ++i) {
    const uint64_t later = static_cast<uint64_t>(nodes[min2(i + kAhead, num_nodes - 1)]);
    if (later < bound) __builtin_prefetch(starts + later);
    if (static_cast<uint64_t>(nodes[i]) >= bound) return bad_index(nodes[i], i, rows->num_rows);
    const int64_t degree = starts[nodes[i] + 1] - starts[nodes[i]];
    sum += fanout < 0 ? degree : replace ? (degree ? fanout : 0) : min2(degree, fanout);
    indptr[i + 1] = sum;
  }
  return GNNLAB_OK;
}

int sample_draw(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes, int64_t fanout,
                int replace, uint64_t seed, int64_t hop, const int64_t* indptr, void* place,
                void* neighbour, int threads) {
  const Job job = {rows, nodes, fanout, replace && fanout >= 0, seed, static_cast<uint32_t>(hop), indptr};
  return rows->index_bytes == 4 ? draw<int32_t>(job, num_nodes, place, neighbour, threads)
                                : draw<int64_t>(job, num_nodes, place, neighbour, threads);
}

int sample_number(void* table, int64_t slots, int hashed, int64_t base, void* ids, int index_bytes,
                  int64_t num_ids, int64_t* nodes, int64_t* count) {
  if (base == 0 && *count == 0) {
    const int64_t bytes = slots * index_bytes * (hashed ? 2 : 1);
    advise_huge_pages(table, bytes);
    __builtin_memset(table, 0, static_cast<size_t>(bytes));
  }
  const auto number = [&](auto kind) {
    using I = decltype(kind);
    const auto each = [&](const auto& table_of) {
      I* id = static_cast<I*>(ids);
      int64_t found = *count;
      for (int64_t e = 0; e < num_ids; ++e) {
        if (e + kAhead < num_ids) table_of.ask(id[e + kAhead]);
        id[e] = static_cast<I>(table_of.number(id[e], nodes, &found));
      }
      *count = found;
    };
    const I start = static_cast<I>(base);
    if (!hashed) return each(Direct<I>{static_cast<I*>(table), start});
    const int shift = 64 - __builtin_ctzll(static_cast<uint64_t>(slots));
    each(Hashed<I>{static_cast<typename Hashed<I>::Slot*>(table), start, static_cast<uint64_t>(slots) - 1, shift});
  };
  index_bytes == 4 ? number(int32_t{}) : number(int64_t{});
  return GNNLAB_OK;
}

}  // namespace gnnlab::GNNLAB_NS
