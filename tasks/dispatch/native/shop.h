// State of a batch of job shops, and the functions that its files share.
//
// One episode is one block of memory ("row"), laid out the same way in all rows of a shop, so that a
// clone is a memcpy and nothing is allocated after gnnlab_shop_new.
#pragma once

#include <cstdint>
#include <cstring>

#include "shop_api.h"

namespace gnnlab::dispatch {

constexpr int64_t kNever = int64_t{1} << 60;

enum Status : uint8_t { kWait = 0, kProc = 1, kBlocked = 2, kDone = 3 };

struct Instance {
  int64_t jobs, machines, longest;
  const int32_t* machine;  // (J, L)
  const int64_t* time;     // (J, L)
  const int32_t* length;   // (J,)
  const int64_t* tail;     // (J, L + 1): work of operation i and all after it
  int64_t total, lb0, slowest, operations;
  double mean_time;
};

// One over mean time, LB0, jobs and machines: what facts are measured in, as products are faster.
struct Inverse {
  double unit, whole, jobs, machines;
  explicit Inverse(const Instance& in)
      : unit(1 / in.mean_time), whole(1 / static_cast<double>(in.lb0 > 0 ? in.lb0 : 1)),
        jobs(1 / static_cast<double>(in.jobs)), machines(1 / static_cast<double>(in.machines)) {}
};

struct Head {
  int64_t time, last_time;  // last_time: of the last reward
  int64_t waited;           // job-time spent waiting since the last reward
  int64_t bound;            // lower bound at the last reward
  int64_t steps, inside, finished, processing, swaps;
  int64_t focus;            // first open machine, -1 without one
  uint32_t flags;
  uint32_t unsettled;       // a job became blocked since rotations were last looked for
};

// One episode: pointers into its block.
struct Row {
  const Instance* in;
  const gnnlab_shop_row* how;
  const gnnlab_shop_options* options;
  int64_t words;  // of a set of jobs
  Head* head;
  int64_t *ready;                                     // (J,) since when the next operation waits
  int64_t *until, *began, *load, *queue_work;         // (M,) end of processing or kNever; its start;
                                                      // work not started; work of those who wait
  int64_t *down_from, *down_to, *repaired;            // (M,) present or next window; end of the last
  int64_t *window;                                    // (M,) its index
  int64_t *start, *end, *depart;                      // (J, L)
  uint64_t *queue;                                    // (M, words) jobs that wait for a machine
  uint64_t *outside;                                  // (words,) jobs not started
  int32_t *next, *place;                              // (J,) next operation; machine or -1
  int32_t *occupant, *queued, *last;                  // (M,) job or -1; size of queue; last operation
  int32_t *before;                                    // (J, L) operation before on the machine, or -1
  uint8_t *status;                                    // (J,)
  uint8_t *holds, *declined;                          // (M,) occupant goes on here; WAIT was said
  bool is_down(int64_t k) const { return down_from[k] <= head->time; }  // down_to > time always
  int64_t op(int64_t j, int64_t i) const { return j * in->longest + i; }
  int64_t next_machine(int64_t j) const { return in->machine[op(j, next[j])]; }
  int64_t next_time(int64_t j) const { return in->time[op(j, next[j])]; }
  bool is_buffered() const { return options->mode == GNNLAB_SHOP_JSSP; }
};

// Calls use(j) for each member of a set of jobs, in ascending order, until it returns true.
template <typename Use>
inline bool each_job(const uint64_t* set, int64_t words, const Use& use) {
  for (int64_t w = 0; w < words; ++w)
    for (uint64_t bits = set[w]; bits; bits &= bits - 1)
      if (use(w * 64 + __builtin_ctzll(bits))) return true;
  return false;
}

// Whether job j, which waits for a machine, may move onto it now.
inline bool may_move(const Row& r, int64_t j) {
  const int64_t k = r.place[j];
  if (r.status[j] == kBlocked) return r.options->unload_when_down || !r.is_down(k);
  const bool is_outside = r.outside[j >> 6] >> (j & 63) & 1;
  return !is_outside || r.how->wip_limit <= 0 || r.head->inside < r.how->wip_limit;
}

inline bool is_empty(const Row& r, int64_t k) { return r.occupant[k] < 0 && !r.is_down(k); }

// Whether machine k is up, empty, not declined, and wanted by a job that may move.
inline bool is_open(const Row& r, int64_t k) {
  if (!r.queued[k] || r.declined[k] || !is_empty(r, k)) return false;
  if (r.options->unload_when_down && r.how->wip_limit <= 0) return true;
  return each_job(r.queue + k * r.words, r.words, [&](int64_t j) { return may_move(r, j); });
}

// ---- shop.cpp
void begin(Row& r);
void act(Row& r, int64_t action);            // one legal action, and on to the next decision
void move(Row& r, int64_t j);                // job j onto its next machine
void settle(Row& r, bool ask);               // on to the next decision, or to the end
const char* illegal(const Row& r, int64_t action);  // why, or null
int64_t next_event(const Row& r, const int64_t* until = nullptr);  // until (M,): other ends of work
bool can_wait(const Row& r);
int64_t lower_bound(const Row& r);
// The same as it looks without the shutdowns to come; left (M,): work_left of each machine.
int64_t lower_bound_seen(const Row& r, const int64_t* left, int64_t* paths);
int64_t first_open(const Row& r);
int64_t makespan(const Row& r);  // -1 before the end, and after a deadlock
double take_reward(Row& r);

// ---- shutdowns.cpp
struct Window { int64_t from, to; };
// Window `index` of a machine; the one before it ended at `last`.
Window following(const Row& r, int64_t machine, int64_t index, int64_t last);
int64_t end_of_work(const Row& r, int64_t j, int64_t i, int64_t k, int64_t from);
int64_t work_left(const Row& r, int64_t k);  // of the operation on machine k, as seen today
int64_t end_seen(const Row& r, int64_t k, int64_t left);  // when that is done; kNever without one
// Makes a copy of r forget the shutdowns to come: ends of work as they look today.
void calm_down(const Row& r, Row& copy);
double uniform(uint64_t key0, uint64_t key1, uint64_t index);

// ---- batch.cpp
Row row_of(const gnnlab_shop* shop, int64_t r);
Row row_at(const Row& like, char* memory, const gnnlab_shop_row* how);

}  // namespace gnnlab::dispatch
