// The dynamic disjunctive graph of many episodes: features of operations and machines, and edges.
//
// Algorithm: one pass counts nodes and edges of each episode, prefix sums place them, a second pass
//   writes each episode where it belongs; so nothing grows and no two threads share a target. Nodes
//   go by job and operation, so that the nodes of a job follow one another. The definition is that of
//   features.py, to the bit.
// Cost: a visit of every operation left, and 16 bytes per edge; cliques of operations that share a
//   machine are most of them.
// Measured by: gnnlab bench dispatch.
#include <cstdlib>
#include <initializer_list>

#include "batch.h"

namespace gnnlab::dispatch {
namespace {

enum Edge { kPred, kSucc, kDisj, kNext, kBlock, kBlockRev, kToMachine, kFromMachine };
constexpr int64_t kColumns = 2 + GNNLAB_SHOP_EDGE_TYPES;

struct Choice {
  bool keeps_done, has_machines, is_clique, deletes_down, knows_repair;
};

Choice choose(const Row& r, int flags) {
  const bool forced = flags & (GNNLAB_SHOP_GRAPH_CLIQUE | GNNLAB_SHOP_GRAPH_STAR);
  return {(flags & GNNLAB_SHOP_GRAPH_KEEP_DONE) != 0, !(flags & GNNLAB_SHOP_GRAPH_NO_MACHINES),
          forced ? (flags & GNNLAB_SHOP_GRAPH_CLIQUE) != 0 : r.in->jobs <= 30,
          (flags & GNNLAB_SHOP_GRAPH_DELETE_DOWN) != 0, !(flags & GNNLAB_SHOP_GRAPH_HIDE_REPAIR)};
}

// The first operation of job j that is a node; all after it are.
int64_t first_node(const Row& r, int64_t j, const Choice& c) {
  if (c.keeps_done) return 0;
  if (r.status[j] == kDone) return r.in->length[j];
  return r.status[j] == kWait ? r.next[j] : r.next[j] - 1;
}

// The operation that occupies machine k, if it has a job that waits behind it.
bool is_waited_for(const Row& r, int64_t k, const Choice& c) {
  return r.occupant[k] >= 0 && r.queued[k] && !(c.deletes_down && r.is_down(k));
}

// Whether the occupant of k leaves it by starting its next operation.
bool leaves_by_starting(const Row& r, int64_t k) {
  const int64_t j = r.occupant[k];
  return !r.is_buffered() && r.next[j] < r.in->length[j];
}

// Numbers that grow; what is added is 0. (std::vector would leave weak symbols in the library.)
struct Numbers {
  int64_t *at = nullptr, size = 0;
  Numbers() = default;
  Numbers(const Numbers&) = delete;
  ~Numbers() { std::free(at); }
  int64_t& operator[](int64_t i) { return at[i]; }
  int64_t operator[](int64_t i) const { return at[i]; }
  void grow(int64_t to) {
    if (to <= size) return;
    at = static_cast<int64_t*>(std::realloc(at, static_cast<size_t>(to) * sizeof(int64_t)));
    if (!at) std::abort();
    std::memset(at + size, 0, static_cast<size_t>(to - size) * sizeof(int64_t));
    size = to;
  }
};

// Memory of one thread, kept from episode to episode.
struct Scratch {
  Numbers work, free_at, count, start, seen, mine, first, occupant, nodes, jobs;
  void fit(int64_t machines, int64_t operations) {
    for (Numbers* v : {&work, &free_at, &count, &start, &seen, &mine, &first, &occupant}) v->grow(machines + 1);
    for (Numbers* v : {&nodes, &jobs}) v->grow(operations);
  }
};

Scratch& scratch(const Row& r) {
  static thread_local Scratch s;
  s.fit(r.in->machines, r.in->operations);
  return s;
}

void count(const Row& r, const Choice& c, int64_t* sizes) {
  Scratch& s = scratch(r);
  const int64_t m = r.in->machines;
  for (int64_t k = 0; k < m; ++k) s.count[k] = s.mine[k] = 0, s.seen[k] = -1;
  for (int64_t j = 0; j < r.in->jobs; ++j) {
    const int64_t nodes = r.in->length[j] - first_node(r, j, c);
    sizes[0] += nodes;
    if (nodes > 0) sizes[2 + kPred] += nodes - 1;
    if (!c.is_clique) continue;
    for (int64_t i = r.next[j]; i < r.in->length[j]; ++i) {
      const int64_t k = r.in->machine[r.op(j, i)];
      if (s.seen[k] != j) s.seen[k] = j, s.mine[k] = 0;
      if (!(c.deletes_down && r.is_down(k))) sizes[2 + kDisj] += 2 * (s.count[k] - s.mine[k]);
      ++s.count[k], ++s.mine[k];
    }
  }
  for (int64_t k = 0; k < m; ++k) {
    if (!is_waited_for(r, k, c)) continue;
    sizes[2 + kNext] += r.queued[k];
    if (leaves_by_starting(r, k)) sizes[2 + kBlock] += r.queued[k];
  }
  sizes[1] = c.has_machines ? m : 0;
  sizes[2 + kSucc] = sizes[2 + kPred];
  sizes[2 + kBlockRev] = sizes[2 + kBlock];
  sizes[2 + kToMachine] = sizes[2 + kFromMachine] = c.has_machines ? sizes[0] : 0;
}

// Where one kind of edges of one episode is written.
struct Writer {
  int64_t *from, *to;
  Writer(const gnnlab_shop_graph_out& out, const int64_t* at, const int64_t* totals, int kind)
      : from(out.edges[kind] + at[2 + kind]), to(from + totals[2 + kind]) {}
  void add(int64_t a, int64_t b) { *from++ = a, *to++ = b; }
};

inline float ratio(int64_t a, int64_t b) { return static_cast<float>(static_cast<double>(a) / static_cast<double>(b)); }

int64_t repair(const Row& r, int64_t k) { return r.is_down(k) ? r.down_to[k] - r.head->time : 0; }

// Whether the blocked occupant of k is on a cycle of jobs that wait for each other's machines.
bool is_rotating(const Row& r, int64_t first) {
  int64_t k = first;
  for (int64_t steps = 0; steps < r.in->machines; ++steps) {
    const int64_t j = r.occupant[k];
    if (j < 0 || r.status[j] != kBlocked) return false;
    k = r.next_machine(j);
    if (k == first) return steps == 0 || r.options->mode != GNNLAB_SHOP_BNS;
  }
  return false;
}

void describe_machines(const Row& r, const Choice& c, const Scratch& s, int64_t row, float* f, int64_t* rows) {
  const int64_t bound = r.in->lb0 > 0 ? r.in->lb0 : 1, n = r.in->jobs;
  for (int64_t k = 0; k < r.in->machines; ++k, f += GNNLAB_SHOP_MACHINE_FEATURES) {
    const int64_t j = r.occupant[k];
    const bool is_processing = j >= 0 && r.status[j] == kProc;
    f[0] = is_processing;
    f[1] = j >= 0 && !is_processing;
    f[2] = r.is_down(k);
    f[3] = c.knows_repair ? ratio(repair(r, k), bound) : 0.0f;
    f[4] = ratio(r.load[k], bound);
    f[5] = ratio(r.queued[k] + r.holds[k], n);
    f[6] = is_processing ? ratio(s.work[k], bound) : 0.0f;
    f[7] = ratio(r.head->inside, n);
    rows[k] = row;
  }
}

void describe_job(const Row& r, int64_t j, int64_t first, const Choice& c, const Scratch& s, bool is_legal, float* f) {
  const int64_t bound = r.in->lb0 > 0 ? r.in->lb0 : 1, longest = r.in->slowest > 0 ? r.in->slowest : 1;
  const int64_t next = r.next[j], length = r.in->length[j], now = r.head->time, place = r.place[j];
  const int64_t* tail = r.in->tail + j * (r.in->longest + 1);
  const bool is_processing = r.status[j] == kProc, is_blocked = r.status[j] == kBlocked;
  const bool is_wanted_occupied = next < length && r.occupant[r.next_machine(j)] >= 0;
  const bool rotates = is_blocked && is_rotating(r, place);
  const float rest = ratio(tail[next], bound);
  int64_t end = is_processing ? s.free_at[place] : now;
  for (int64_t i = first; i < length; ++i, f += GNNLAB_SHOP_OP_FEATURES) {
    const int64_t o = r.op(j, i), k = r.in->machine[o], p = r.in->time[o];
    const bool has_started = i < next, is_waiting = i == next && !is_processing;
    if (r.status[j] == kDone || i < (r.status[j] == kWait ? next : next - 1)) {  // departed
      std::memset(f, 0, GNNLAB_SHOP_OP_FEATURES * sizeof(float));
      continue;
    }
    const int64_t start = end > s.free_at[k] ? end : s.free_at[k];
    if (!has_started) end = start + p;
    f[0] = !has_started;
    f[1] = has_started && is_processing;
    f[2] = has_started && is_blocked;
    f[3] = ratio(p, longest);
    f[4] = tail[0] > 0 ? ratio(tail[0] - tail[i + 1], tail[0]) : 1.0f;
    f[5] = ratio(length - i - 1, length);
    const float waited = is_waiting ? ratio(now - r.ready[j], bound) : 0.0f;
    f[6] = waited < 1.0f ? waited : 1.0f;
    f[7] = has_started && is_processing ? ratio(s.work[place], longest) : 0.0f;
    f[8] = is_waiting && is_legal;
    f[9] = rest;
    f[10] = has_started ? 0.0f : ratio(start - now, bound);
    f[11] = r.is_down(k);
    f[12] = c.knows_repair ? ratio(repair(r, k), bound) : 0.0f;
    f[13] = next > 0;
    f[14] = is_wanted_occupied;
    f[15] = rotates;
  }
}

// Edges both ways between operations of different jobs that one machine has yet to start.
void link_cliques(const Row& r, const Choice& c, const Scratch& s, bool has_twins, Writer disj) {
  for (int64_t k = 0; k < r.in->machines; ++k) {
    if (c.deletes_down && r.is_down(k)) continue;
    const int64_t size = s.count[k];
    const int64_t *node = s.nodes.at + s.start[k], *job = s.jobs.at + s.start[k];
    for (int64_t a = 0; a < size; ++a) {
      if (has_twins) {
        for (int64_t b = 0; b < size; ++b)
          if (job[a] != job[b]) disj.add(node[a], node[b]);
        continue;
      }
      for (int64_t b = 0; b < size - 1; ++b) disj.from[b] = node[a];
      for (int64_t b = 0; b < a; ++b) disj.to[b] = node[b];
      for (int64_t b = a + 1; b < size; ++b) disj.to[b - 1] = node[b];
      disj.from += size - 1, disj.to += size - 1;
    }
  }
}

// Room for the members of each clique, and what is known of the operations in process.
void prepare(const Row& r, const Choice& c, Scratch& s) {
  const int64_t m = r.in->machines, now = r.head->time;
  int64_t total = 0;
  for (int64_t k = 0; k < m; ++k) s.count[k] = 0, s.seen[k] = -1;
  if (c.is_clique)
    for (int64_t j = 0; j < r.in->jobs; ++j)
      for (int64_t i = r.next[j]; i < r.in->length[j]; ++i) ++s.count[r.in->machine[r.op(j, i)]];
  for (int64_t k = 0; k < m; ++k) {
    s.start[k] = total;
    total += s.count[k];
    s.count[k] = 0;
    s.work[k] = work_left(r, k);
    const bool is_processing = r.occupant[k] >= 0 && r.status[r.occupant[k]] == kProc;
    s.free_at[k] = now;
    if (is_processing) s.free_at[k] = c.knows_repair ? end_seen(r, k, s.work[k]) : now + s.work[k];
  }
}

// Edges from the operation that occupies a machine to those that wait for it.
void link_occupants(const Row& r, const Choice& c, const Scratch& s, const int64_t* candidate, Writer following,
                    Writer block, Writer reverse) {
  for (int64_t k = 0; k < r.in->machines; ++k) {
    if (!is_waited_for(r, k, c)) continue;
    const int64_t occupant = s.occupant[k];
    const bool blocks = leaves_by_starting(r, k);
    each_job(r.queue + k * r.words, r.words, [&](int64_t a) {
      following.add(occupant, candidate[a]);
      if (blocks) block.add(occupant, candidate[a]), reverse.add(candidate[a], occupant);
      return false;
    });
  }
}

void write(const Row& r, const Choice& c, int64_t row, const int64_t* at, const int64_t* totals, int64_t width,
           const gnnlab_shop_graph_out& out) {
  Scratch& s = scratch(r);
  uint8_t* mask = out.mask + row * (width + 1);
  int64_t* candidate = out.candidate + row * (width + 1);
  write_mask(r, mask, width + 1);
  out.time[row] = r.head->time;
  prepare(r, c, s);
  const int64_t machine = at[1];
  if (c.has_machines)
    describe_machines(r, c, s, row, out.x_machine + machine * GNNLAB_SHOP_MACHINE_FEATURES, out.machine_row + machine);

  Writer pred(out, at, totals, kPred), succ(out, at, totals, kSucc);
  Writer to_machine(out, at, totals, kToMachine), from_machine(out, at, totals, kFromMachine);
  int64_t node = at[0];
  bool has_twins = false;
  for (int64_t j = 0; j < width + 1; ++j) candidate[j] = -1;
  for (int64_t j = 0; j < r.in->jobs; ++j) {
    const int64_t first = first_node(r, j, c), length = r.in->length[j], next = r.next[j];
    if (first >= length) continue;
    describe_job(r, j, first, c, s, mask[j], out.x_op + node * GNNLAB_SHOP_OP_FEATURES);
    if (next < length) candidate[j] = node + next - first;
    for (int64_t i = first; i < length; ++i, ++node) {
      const int64_t k = r.in->machine[r.op(j, i)];
      out.op_row[node] = row;
      out.op_job[node] = j;
      out.op_machine[node] = k;
      out.op_twin[node] = node;
      if (i > first) pred.add(node - 1, node), succ.add(node, node - 1);
      if (c.has_machines) to_machine.add(node, machine + k), from_machine.add(machine + k, node);
      if (i < next) {
        if (i + 1 == next && r.place[j] >= 0) s.occupant[k] = node;
        continue;
      }
      if (s.seen[k] == j)
        out.op_twin[node] = s.first[k], has_twins = true;
      else
        s.seen[k] = j, s.first[k] = node;
      if (!c.is_clique) continue;
      const int64_t slot = s.start[k] + s.count[k]++;
      s.nodes[slot] = node;
      s.jobs[slot] = j;
    }
  }
  if (c.is_clique) link_cliques(r, c, s, has_twins, Writer(out, at, totals, kDisj));
  link_occupants(r, c, s, candidate, Writer(out, at, totals, kNext), Writer(out, at, totals, kBlock),
                 Writer(out, at, totals, kBlockRev));
}

}  // namespace
}  // namespace gnnlab::dispatch

using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_graph_sizes(const gnnlab_shop* shop, const int64_t* rows, int64_t count_, int flags,
                                               int64_t* offsets, int threads) {
  std::memset(offsets, 0, static_cast<size_t>((count_ + 1) * kColumns) * sizeof(int64_t));
  const int status = each_row(shop, rows, count_, threads, [&](Row& r, int64_t i) {
    count(r, choose(r, flags), offsets + (i + 1) * kColumns);
    return nullptr;
  });
  for (int64_t i = kColumns; i < (count_ + 1) * kColumns; ++i) offsets[i] += offsets[i - kColumns];
  return status;
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_graph(const gnnlab_shop* shop, const int64_t* rows, int64_t count_, int flags,
                                         const int64_t* offsets, const gnnlab_shop_graph_out* out, int threads) {
  return each_row(shop, rows, count_, threads, [&](Row& r, int64_t i) {
    write(r, choose(r, flags), i, offsets + i * kColumns, offsets + count_ * kColumns, shop->most_jobs, *out);
    return nullptr;
  });
}
