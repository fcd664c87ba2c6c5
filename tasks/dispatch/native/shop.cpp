// The event-driven simulator of one episode: completions, shutdowns, rotations, decisions.
//
// Algorithm: the order of events inside an instant is that of the plain Python `Simulator`, which
//   reads like the text it was made from: complete, switch machines up or down, rotate cycles of
//   blocked jobs, then decide; again until nothing changes, then on to the next event. Jobs that
//   wait for a machine are a bit set per machine, so that candidates come in ascending order.
// Cost: an instant scans the M machines a few times (M is 5 to 20, in cache); a decision looks at the
//   waiting jobs of one machine. Sums: integers only; rewards divide once.
// Measured by: gnnlab bench dispatch.
#include "shop.h"

namespace gnnlab::dispatch {
namespace {

void enqueue(Row& r, int64_t j) {
  const int64_t k = r.next_machine(j);
  r.queue[k * r.words + (j >> 6)] |= uint64_t{1} << (j & 63);
  r.queue_work[k] += r.next_time(j);
  ++r.queued[k];
}

void dequeue(Row& r, int64_t j, int64_t k) {
  r.queue[k * r.words + (j >> 6)] &= ~(uint64_t{1} << (j & 63));
  r.queue_work[k] -= r.next_time(j);
  --r.queued[k];
}

// Starts the next operation of job j on machine k at this instant; j is in no queue any more.
void start(Row& r, int64_t j, int64_t k) {
  Head& h = *r.head;
  const int64_t i = r.next[j]++, o = r.op(j, i);
  if (i > 0 && !r.is_buffered()) r.depart[o - 1] = h.time;
  r.start[o] = r.began[k] = h.time;
  r.end[o] = r.until[k] = end_of_work(r, j, i, k, h.time);
  r.load[k] -= r.in->time[o];
  r.before[o] = r.last[k];
  r.last[k] = static_cast<int32_t>(o);
  r.occupant[k] = static_cast<int32_t>(j);
  r.place[j] = static_cast<int32_t>(k);
  r.status[j] = kProc;
  ++h.processing;
}

void complete(Row& r, int64_t k) {
  Head& h = *r.head;
  const int64_t j = r.occupant[k], i = r.next[j] - 1;
  r.until[k] = kNever;
  r.ready[j] = h.time;
  --h.processing;
  const bool is_last = i + 1 == r.in->length[j];
  if (is_last || r.is_buffered()) r.depart[r.op(j, i)] = h.time;
  if (is_last) {
    r.status[j] = kDone;
    r.place[j] = r.occupant[k] = -1;
    ++h.finished;
    --h.inside;
  } else if (r.next_machine(j) == k) {  // stays where it is
    r.status[j] = kBlocked;
    r.holds[k] = 1;
    h.unsettled = 1;
  } else {
    if (r.is_buffered()) {
      r.status[j] = kWait;
      r.place[j] = r.occupant[k] = -1;
    } else {
      r.status[j] = kBlocked;
      h.unsettled = 1;
    }
    enqueue(r, j);
  }
}

bool complete_all(Row& r) {
  bool any = false;
  for (int64_t k = 0; k < r.in->machines; ++k)
    if (r.until[k] == r.head->time) {
      complete(r, k);
      any = true;
    }
  return any;
}

void switch_machines(Row& r) {
  for (int64_t k = 0; k < r.in->machines; ++k)
    while (r.down_to[k] <= r.head->time) {
      r.repaired[k] = r.down_to[k];
      const Window w = following(r, k, ++r.window[k], r.down_to[k]);
      r.down_from[k] = w.from;
      r.down_to[k] = w.to;
      r.head->unsettled = 1;
    }
}

// The machine that the finished occupant of k waits for, or -1.
int64_t wanted_by_occupant(const Row& r, int64_t k) {
  const int64_t j = r.occupant[k];
  return j >= 0 && r.status[j] == kBlocked && !r.holds[k] ? r.next_machine(j) : -1;
}

// Moves every job of the cycle through machine `first` at this instant.
void rotate(Row& r, int64_t first) {
  int64_t k = first, j = r.occupant[k];
  do {
    const int64_t next = r.next_machine(j), successor = r.occupant[next];
    dequeue(r, j, next);
    start(r, j, next);
    k = next;
    j = successor;
  } while (k != first);
  ++r.head->swaps;
}

// Whether machine k is on a cycle of blocked jobs whose machines are all up; in an instant no
// machine is on two, so walking from every machine finds each cycle at its first machine.
bool can_rotate(const Row& r, int64_t first) {
  int64_t k = first, steps = 0;
  do {
    if (r.is_down(k)) return false;
    k = wanted_by_occupant(r, k);
    if (k < first || ++steps > r.in->machines) return false;  // no cycle, or seen from another machine
  } while (k != first);
  return true;
}

bool rotations(Row& r) {
  bool any = false;
  r.head->unsettled = 0;
  for (int64_t k = 0; k < r.in->machines; ++k) {
    if (r.occupant[k] < 0) continue;
    if (r.holds[k]) {
      if (r.is_down(k)) continue;
      r.holds[k] = 0;
      start(r, r.occupant[k], k);
      any = true;
    } else if (r.options->mode == GNNLAB_SHOP_BWS && can_rotate(r, k)) {
      rotate(r, k);
      any = true;
    }
  }
  return any;
}

void advance(Row& r, int64_t to) {
  Head& h = *r.head;
  const int64_t waiting = r.in->jobs - h.finished - h.processing;
  h.waited += waiting * (to - h.time);
  h.time = to;
  std::memset(r.declined, 0, static_cast<size_t>(r.in->machines));
}

// The only legal action, or -1 when there are none or several.
int64_t only_action(const Row& r) {
  if (can_wait(r)) return -1;
  int64_t found = -1;
  for (int64_t k = r.head->focus; k < r.in->machines; ++k) {
    if (!is_open(r, k)) continue;
    const bool several = each_job(r.queue + k * r.words, r.words, [&](int64_t j) {
      if (!may_move(r, j)) return false;
      if (found >= 0) return true;
      found = j;
      return false;
    });
    if (several) return -1;
    if (r.options->focus) break;
  }
  return found;
}

// Longest path over jobs, with machine k free at base + until[k]; kNever: free now. The inner loop
// chooses without branches: which machine is busy cannot be predicted.
int64_t longest_path(const Row& r, const int64_t* until, int64_t base, int64_t* paths) {
  int64_t bound = r.in->lb0;
  for (int64_t j = 0; j < r.in->jobs; ++j) {
    int64_t at = r.head->time;
    if (r.status[j] == kDone) at = r.end[r.op(j, r.in->length[j] - 1)];
    if (r.status[j] == kProc) at = base + until[r.place[j]];
    const int32_t* machine = r.in->machine + r.op(j, 0);
    const int64_t* time = r.in->time + r.op(j, 0);
    for (int64_t i = r.next[j]; i < r.in->length[j]; ++i) {
      const int64_t free = until[machine[i]] < kNever ? base + until[machine[i]] : 0;
      at = (free > at ? free : at) + time[i];
    }
    if (paths) paths[j] = at;
    bound = at > bound ? at : bound;
  }
  return bound;
}

}  // namespace

int64_t first_open(const Row& r) {
  for (int64_t k = 0; k < r.in->machines; ++k)
    if (is_open(r, k)) return k;
  return -1;
}

int64_t makespan(const Row& r) {
  if (r.head->flags != GNNLAB_SHOP_DONE) return -1;
  int64_t most = 0;
  for (int64_t j = 0; j < r.in->jobs; ++j) {
    const int64_t end = r.end[r.op(j, r.in->length[j] - 1)];
    most = end > most ? end : most;
  }
  return most;
}

int64_t next_event(const Row& r, const int64_t* until) {
  int64_t next = kNever;
  if (!until) until = r.until;
  for (int64_t k = 0; k < r.in->machines; ++k) next = until[k] < next ? until[k] : next;
  if (r.how->trace)
    for (int64_t k = 0; k < r.in->machines; ++k) {
      if (!r.is_down(k)) continue;
      const int64_t j = r.occupant[k];
      const bool keeps = !r.options->unload_when_down && j >= 0 && r.status[j] == kBlocked;
      if ((r.queued[k] || r.holds[k] || keeps) && r.down_to[k] < next) next = r.down_to[k];
    }
  return next;
}

bool can_wait(const Row& r) {
  if (!r.options->allow_wait) return false;
  if (next_event(r) < kNever) return true;
  if (!r.options->focus) return false;
  for (int64_t k = r.head->focus + 1; k < r.in->machines; ++k)  // another machine can decide
    if (is_open(r, k)) return true;
  return false;
}

void settle(Row& r, bool ask) {
  Head& h = *r.head;
  const int64_t most = r.options->max_steps ? r.options->max_steps : 20 * r.in->operations + 1000;
  while (true) {
    complete_all(r);
    if (r.how->trace) switch_machines(r);
    if (h.unsettled && rotations(r)) continue;
    if (h.finished == r.in->jobs) {
      h.flags |= GNNLAB_SHOP_DONE;
      h.focus = -1;
      return;
    }
    h.focus = first_open(r);
    if (h.focus >= 0) {
      if (h.steps >= most) {
        h.flags |= GNNLAB_SHOP_TRUNCATED;
        return;
      }
      const int64_t only = ask && r.options->auto_trivial ? only_action(r) : -1;
      if (only < 0) return;
      ++h.steps;
      move(r, only);
      continue;
    }
    const int64_t next = next_event(r);
    if (next >= kNever / 4) {  // nothing to come, or not in any time worth the name
      bool any_declined = false;
      for (int64_t k = 0; k < r.in->machines; ++k) any_declined |= r.declined[k];
      if (any_declined) {  // those that others decided for, in no time, must decide themselves
        advance(r, h.time);
        continue;
      }
      h.flags |= GNNLAB_SHOP_DONE | GNNLAB_SHOP_DEADLOCK;
      return;
    }
    advance(r, next);
  }
}

void move(Row& r, int64_t j) {
  const int64_t k = r.next_machine(j), from = r.place[j];
  dequeue(r, j, k);
  if (r.status[j] == kBlocked) {
    r.occupant[from] = -1;
  } else if (r.next[j] == 0) {
    r.outside[j >> 6] &= ~(uint64_t{1} << (j & 63));
    ++r.head->inside;
  }
  start(r, j, k);
}

void act(Row& r, int64_t action) {
  ++r.head->steps;
  if (action < r.in->jobs) {
    move(r, action);
  } else if (r.options->focus) {
    r.declined[r.head->focus] = 1;
  } else {
    advance(r, next_event(r));
  }
  settle(r, true);
}

const char* illegal(const Row& r, int64_t action) {
  if (r.head->flags) return "the episode is over";
  if (action == r.in->jobs) {
    if (!r.options->allow_wait) return "waiting is not allowed in this shop";
    return can_wait(r) ? nullptr : "there is no event to wait for";
  }
  if (action < 0 || action > r.in->jobs) return "there is no such job";
  if (r.status[action] == kDone) return "the job is finished";
  if (r.status[action] == kProc) return "the job is being processed";
  const int64_t k = r.next_machine(action);
  if (!is_empty(r, k)) return r.is_down(k) ? "its next machine is down" : "its next machine is occupied";
  if (r.declined[k]) return "its next machine was told to wait";
  if (!may_move(r, action))
    return r.status[action] == kBlocked ? "the machine it is on is down" : "the shop holds as many jobs as it may";
  if (r.options->focus && k != r.head->focus) return "the decision is about another machine";
  return nullptr;
}

int64_t lower_bound(const Row& r) { return longest_path(r, r.until, 0, nullptr); }

int64_t lower_bound_seen(const Row& r, const int64_t* left, int64_t* paths) {
  return longest_path(r, left, r.head->time, paths);
}

double take_reward(Row& r) {
  Head& h = *r.head;
  const double scale = r.how->scale > 0 ? r.how->scale : static_cast<double>(r.in->lb0 > 0 ? r.in->lb0 : 1);
  double reward = 0;
  if (r.options->reward == GNNLAB_SHOP_ELAPSED) {
    reward = -static_cast<double>(h.time - h.last_time) / scale;
  } else if (r.options->reward == GNNLAB_SHOP_WAITING) {
    reward = -static_cast<double>(h.waited) / (static_cast<double>(r.in->jobs) * scale);
  } else {
    const int64_t bound = lower_bound(r);
    reward = -static_cast<double>(bound - h.bound) / scale;
    h.bound = bound;
  }
  h.last_time = h.time;
  h.waited = 0;
  if (h.flags & GNNLAB_SHOP_DEADLOCK) reward -= static_cast<double>(r.in->total) / scale;
  return reward;
}

void begin(Row& r) {
  const int64_t n = r.in->jobs, m = r.in->machines, cells = n * r.in->longest;
  *r.head = Head{};
  r.head->bound = r.in->lb0;
  r.head->focus = -1;
  for (int64_t o = 0; o < cells; ++o) {
    r.start[o] = r.end[o] = r.depart[o] = -1;
    r.before[o] = -1;
  }
  std::memset(r.queue, 0, static_cast<size_t>(m * r.words) * sizeof(uint64_t));
  std::memset(r.outside, 0, static_cast<size_t>(r.words) * sizeof(uint64_t));
  for (int64_t k = 0; k < m; ++k) {
    r.until[k] = kNever;
    r.began[k] = r.load[k] = r.queue_work[k] = r.window[k] = r.repaired[k] = 0;
    const Window w = following(r, k, 0, 0);
    r.down_from[k] = w.from;
    r.down_to[k] = w.to;
    r.occupant[k] = -1;
    r.queued[k] = 0;
    r.last[k] = -1;
    r.holds[k] = r.declined[k] = 0;
  }
  for (int64_t j = 0; j < n; ++j) {
    r.ready[j] = 0;
    r.next[j] = 0;
    r.place[j] = -1;
    r.status[j] = kWait;
    r.outside[j >> 6] |= uint64_t{1} << (j & 63);
    for (int64_t i = 0; i < r.in->length[j]; ++i) r.load[r.in->machine[r.op(j, i)]] += r.in->time[r.op(j, i)];
    enqueue(r, j);
  }
}

}  // namespace gnnlab::dispatch
