// What a policy over jobs sees: a vector per job, one for the shop, and the legal actions.
//
// The same numbers, column by column with their names: job_features.py.
//
// Only the present is shown: which machines are down and, if repairs are known, until when; work left
// as it looks without further shutdowns. Times are divided by the mean operation time or by LB0, so
// that sizes and units of an instance do not matter.
// Reads the state of an episode once (about 200 bytes per job, and the rest of each job's operations
// for the bound); writes 39 floats per job.
#include "batch.h"

namespace gnnlab::dispatch {
namespace {

constexpr int64_t kFacts = 12;  // about a machine

// Blocked jobs ahead of one that wants machine k, and the work left of the one at the end.
struct Chain {
  int64_t length, left;
  bool is_cycle;
};

Chain follow(const Row& r, int64_t k, const int64_t* left) {
  Chain chain{0, 0, false};
  while (k >= 0 && r.occupant[k] >= 0) {
    const int64_t j = r.occupant[k];
    if (r.status[j] == kProc) {
      chain.left = left[k];
      return chain;
    }
    if (++chain.length > r.in->machines) {
      chain.is_cycle = true;
      return chain;
    }
    k = r.holds[k] ? -1 : r.next_machine(j);
  }
  return chain;
}

inline float ratio(double a, double b) { return static_cast<float>(a / b); }
inline float times(int64_t a, double b) { return static_cast<float>(static_cast<double>(a) * b); }

// Twelve facts about a machine that a job will need.
void describe_machine(const Row& r, int64_t k, const int64_t* left, const Inverse& s, int64_t bound, float* f) {
  const int64_t j = r.occupant[k];
  const bool is_blocked = j >= 0 && r.status[j] == kBlocked, down = r.is_down(k);
  f[0] = times(left[k], s.unit);
  f[1] = is_blocked;
  f[2] = down;
  f[3] = down && r.options->repair_known ? times(r.down_to[k] - r.head->time, s.unit) : 0.0f;
  f[4] = times(r.queued[k], s.jobs);
  f[5] = times(r.queue_work[k], 0.1 * s.unit);
  f[6] = times(r.load[k], s.whole);
  f[7] = times(bound - r.head->time - left[k] - r.load[k], s.whole);
  f[8] = j < 0 && !down;
  const Chain chain = follow(r, k, left);
  f[9] = times(chain.length, s.machines);
  f[10] = times(chain.left, s.unit);
  f[11] = chain.is_cycle;
}

void describe_job(const Row& r, int64_t j, const int64_t* left, const Inverse& s, int64_t bound, int64_t path,
                  bool is_legal, const float* machines, float* f) {
  const int64_t i = r.next[j];
  const int64_t* tail = r.in->tail + j * (r.in->longest + 1);
  const double tot = static_cast<double>(tail[0] > 0 ? tail[0] : 1);
  f[0] = is_legal;
  f[1] = r.status[j] == kWait && i == 0;
  f[2] = r.status[j] == kBlocked || (r.status[j] == kWait && i > 0);
  f[3] = r.status[j] == kProc;
  f[4] = r.status[j] == kProc ? times(left[r.place[j]], s.unit) : 0.0f;
  f[5] = r.status[j] == kProc ? 0.0f : times(r.head->time - r.ready[j], 0.25 * s.unit);
  f[6] = times(bound - path, s.whole);
  f[7] = times(tail[i], s.whole);
  f[8] = ratio(static_cast<double>(r.in->length[j] - i), static_cast<double>(r.in->length[j]));
  f[9] = ratio(static_cast<double>(tail[i]), tot);
  if (i == r.in->length[j]) return;
  const double p = static_cast<double>(r.next_time(j)), rem = static_cast<double>(tail[i] > 0 ? tail[i] : 1);
  f[10] = times(r.next_time(j), s.unit);
  f[11] = ratio(p, rem);
  f[12] = ratio(tot - rem + p, tot + p);
  std::memcpy(f + 13, machines + r.next_machine(j) * kFacts, kFacts * sizeof(float));
  if (i + 1 == r.in->length[j]) return;
  f[25] = 1;
  f[26] = times(r.in->time[r.op(j, i + 1)], s.unit);
  std::memcpy(f + 27, machines + r.in->machine[r.op(j, i + 1)] * kFacts, kFacts * sizeof(float));
}

void describe_shop(const Row& r, const float* machines, const Inverse& s, int64_t bound, int64_t event, float* g) {
  const Head& h = *r.head;
  int64_t open = 0, blocked = 0, down = 0, todo = 0, waiting = 0;
  for (int64_t k = 0; k < r.in->machines; ++k) {
    open += is_open(r, k);
    down += r.is_down(k);
    blocked += r.occupant[k] >= 0 && r.status[r.occupant[k]] == kBlocked;
    todo += r.load[k];
    waiting += r.queued[k];
  }
  g[0] = ratio(static_cast<double>(h.time), static_cast<double>(bound > 0 ? bound : 1));
  g[1] = times(h.inside, s.jobs);
  g[2] = times(h.inside, s.machines);
  g[3] = times(h.finished, s.jobs);
  g[4] = times(open, s.machines);
  g[5] = times(blocked, s.machines);
  g[6] = times(down, s.machines);
  g[7] = ratio(static_cast<double>(todo), static_cast<double>(r.in->total > 0 ? r.in->total : 1));
  g[8] = times(bound - r.in->lb0, s.whole);
  g[9] = event < kNever ? times(event - h.time, s.unit) : 0.0f;
  g[10] = ratio(static_cast<double>(r.in->jobs - r.in->machines), static_cast<double>(r.in->jobs + r.in->machines));
  g[11] = times(waiting, s.jobs);
  if (h.focus >= 0) std::memcpy(g + 12, machines + h.focus * kFacts, kFacts * sizeof(float));
}

}  // namespace

void write_mask(const Row& r, uint8_t* mask, int64_t width) {
  std::memset(mask, 0, static_cast<size_t>(width));
  if (r.head->flags || r.head->focus < 0) return;
  for (int64_t k = r.head->focus; k < r.in->machines; ++k) {
    if (!is_open(r, k)) continue;
    each_job(r.queue + k * r.words, r.words, [&](int64_t j) {
      mask[j] = may_move(r, j);
      return false;
    });
    if (r.options->focus) break;
  }
  mask[width - 1] = can_wait(r);
}

}  // namespace gnnlab::dispatch

using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_jobs(const gnnlab_shop* shop, const int64_t* rows, int64_t count, float* jobs,
                                        float* globals, uint8_t* mask, int64_t* op, int64_t* machine, int threads) {
  const int64_t width = shop->most_jobs;
  constexpr int64_t kMachines = 256, kJobs = 4096;
  for (int64_t s = 0; s < shop->num_instances; ++s)
    if (shop->instances[s].machines > kMachines || shop->instances[s].jobs > kJobs)
      return gnnlab::fail(GNNLAB_BAD_ARGUMENT, "a policy sees up to 4096 jobs and 256 machines");
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t at) {
    int64_t left[kMachines], ends[kMachines], path[kJobs];
    for (int64_t k = 0; k < r.in->machines; ++k) {
      left[k] = work_left(r, k);
      ends[k] = end_seen(r, k, left[k]);
    }
    const int64_t bound = lower_bound_seen(r, left, path);
    const Inverse s(*r.in);
    float machines[kMachines * kFacts];
    for (int64_t k = 0; k < r.in->machines; ++k) describe_machine(r, k, left, s, bound, machines + k * kFacts);
    uint8_t* legal = mask + at * (width + 1);
    write_mask(r, legal, width + 1);
    float* f = jobs + at * width * GNNLAB_SHOP_JOB_FEATURES;
    std::memset(f, 0, static_cast<size_t>(width * GNNLAB_SHOP_JOB_FEATURES) * sizeof(float));
    for (int64_t j = 0; j < width; ++j) {
      const bool has_next = j < r.in->jobs && r.next[j] < r.in->length[j];
      op[at * width + j] = has_next ? r.op(j, r.next[j]) : -1;
      machine[at * width + j] = has_next ? r.next_machine(j) : -1;
      if (j < r.in->jobs && r.status[j] != kDone)
        describe_job(r, j, left, s, bound, path[j], legal[j], machines, f + j * GNNLAB_SHOP_JOB_FEATURES);
    }
    float* g = globals + at * GNNLAB_SHOP_GLOBAL_FEATURES;
    std::memset(g, 0, GNNLAB_SHOP_GLOBAL_FEATURES * sizeof(float));
    describe_shop(r, machines, s, bound, next_event(r, ends), g);
    return nullptr;
  });
}
