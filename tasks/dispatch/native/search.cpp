// Improvement: simulated annealing over priorities of operations, judged by whole episodes.
//
// Algorithm: a candidate solution is a number per operation; on the first open machine the waiting
//   operation with the smallest number goes first. Where waiting is allowed an operation may also be
//   *reserved*: its machine stays idle while it is on its way and has the smaller number. A move takes
//   a pair of operations that follow each other on a machine along the critical path, and gives the
//   later one the smaller number. Better and equal solutions are kept, worse ones with a probability
//   that falls during the search. The last episode replays the best solution.
// Cost: one episode per evaluation (about 0.1 us per operation); nothing is allocated inside.
// Random numbers: dice.h.
// annealing.py finds the same schedules.
#include <cmath>
#include <cstdlib>

#include "batch.h"
#include "dice.h"

namespace gnnlab::dispatch {
namespace {

struct Pair { int32_t first, second; };  // neighbours on a machine

struct Search {
  Row& r;
  int64_t cells;
  double *rank, *best_rank;
  uint8_t *reserved, *best_reserved;
  Pair* pairs;
  int32_t* before;
  Dice dice;
  int64_t count = 0;  // of pairs

  // Whether an operation that is about to come to machine k is reserved and goes before `rank_now`.
  bool should_wait(int64_t k, double rank_now) const {
    for (int64_t other = 0; other < r.in->machines; ++other) {
      const int64_t j = r.occupant[other];
      if (j < 0 || r.status[j] != kProc || r.next[j] >= r.in->length[j]) continue;
      const int64_t o = r.op(j, r.next[j]);
      if (r.in->machine[o] == k && reserved[o] && rank[o] < rank_now) return true;
    }
    return false;
  }

  // One episode; kNever for a deadlock.
  int64_t play() {
    const bool may_wait = r.options->allow_wait;
    begin(r);
    settle(r, false);
    while (!r.head->flags) {
      const int64_t k = r.head->focus;
      int64_t best = -1;
      double least = 0;
      each_job(r.queue + k * r.words, r.words, [&](int64_t j) {
        if (!may_move(r, j)) return false;
        const double value = rank[r.op(j, r.next[j])];
        if (best < 0 || value < least) {
          best = j;
          least = value;
        }
        return false;
      });
      ++r.head->steps;
      if (may_wait && should_wait(k, least) && can_wait(r))
        r.declined[k] = 1;
      else
        move(r, best);
      settle(r, false);
    }
    const int64_t span = makespan(r);
    return span < 0 ? kNever : span;
  }

  // Neighbours on machines along the way back from the last operation.
  int64_t critical() {
    int64_t o = -1, most = -1, found = 0;
    for (int64_t j = 0; j < r.in->jobs; ++j) {
      const int64_t last = r.op(j, r.in->length[j] - 1);
      if (r.end[last] > most) {
        most = r.end[last];
        o = last;
      }
    }
    for (int64_t step = 0; o >= 0 && step < 2 * cells; ++step) {
      const int64_t u = r.before[o];
      const bool has_job_before = o % r.in->longest > 0;
      const bool by_job = has_job_before && r.end[o - 1] == r.start[o];
      if (u >= 0 && u / r.in->longest != o / r.in->longest) {
        const bool by_machine = r.depart[u] == r.start[o];
        if (by_machine || !by_job) pairs[found++] = {static_cast<int32_t>(u), static_cast<int32_t>(o)};
        if (by_job && (!by_machine || dice.next() & 1)) {
          o = o - 1;
        } else {
          const bool is_last = u % r.in->longest + 1 == r.in->length[u / r.in->longest];
          o = is_last || r.is_buffered() || r.end[u] == r.depart[u] ? u : u + 1;
        }
      } else {
        o = has_job_before ? o - 1 : -1;
      }
      if (found >= cells) break;
    }
    return found;
  }

  // Reads from the episode just played, whose solution was accepted, what the next moves choose from.
  void look() {
    std::memcpy(before, r.before, static_cast<size_t>(cells) * sizeof(int32_t));
    count = critical();
  }

  void change(double spread) {
    const bool may_wait = r.options->allow_wait;
    if (count > 0 && dice.unit() < 0.9) {
      const Pair p = pairs[dice.below(count)];
      rank[p.second] = rank[p.first] - spread * dice.unit();
      if (may_wait) reserved[p.second] = dice.unit() < 0.7;
      return;
    }
    const int64_t o = dice.below(cells), u = before[o];
    if (u < 0) return;
    if (may_wait && dice.next() & 1) {
      reserved[o] = !reserved[o];
    } else {
      const double swapped = rank[o];
      rank[o] = rank[u];
      rank[u] = swapped;
    }
  }
};

// Ranks by four rules whose keys belong to operations, to be tried first.
void rule_ranks(const Row& r, int64_t rule, double* rank) {
  for (int64_t j = 0; j < r.in->jobs; ++j) {
    const int64_t* tail = r.in->tail + j * (r.in->longest + 1);
    for (int64_t i = 0; i < r.in->length[j]; ++i) {
      const double p = static_cast<double>(r.in->time[r.op(j, i)]), rem = static_cast<double>(tail[i] > 0 ? tail[i] : 1);
      const double tot = static_cast<double>(tail[0] > 0 ? tail[0] : 1);
      const double value = rule == 0 ? p / rem : rule == 1 ? 1 - rem / tot * 0.5 : rule == 2 ? p / tot * 4 : (tot - rem + p) / (rem + tot);
      rank[r.op(j, i)] = value;
    }
  }
}

}  // namespace
}  // namespace gnnlab::dispatch

using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_search(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* start,
                                          int64_t evaluations, const uint64_t* seeds, int threads) {
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t i) -> const char* {
    const int64_t cells = r.in->jobs * r.in->longest;
    double* ranks = static_cast<double*>(std::malloc(static_cast<size_t>(cells) * (3 * sizeof(double) + sizeof(Pair) + sizeof(int32_t) + 3)));
    if (!ranks) return "out of memory";
    double *rank = ranks, *best_rank = rank + cells, *old_rank = best_rank + cells;
    Pair* pairs = reinterpret_cast<Pair*>(old_rank + cells);
    int32_t* before = reinterpret_cast<int32_t*>(pairs + cells);
    uint8_t *reserved = reinterpret_cast<uint8_t*>(before + cells), *best_reserved = reserved + cells, *old_reserved = best_reserved + cells;
    const size_t all = static_cast<size_t>(cells);
    for (int64_t o = 0; o < cells; ++o) rank[o] = best_rank[o] = 0;
    std::memset(reserved, 0, all);
    Search s{r, cells, rank, best_rank, reserved, best_reserved, pairs, before,
             Dice{(seeds ? seeds[i] : 0) * 0x9E3779B97F4A7C15u + 0x1234567887654321u}};
    int64_t best = kNever, used = 0;
    const auto keep = [&](int64_t value) {
      if (value >= best) return;
      best = value;
      std::memcpy(best_rank, rank, all * sizeof(double));
      std::memcpy(best_reserved, reserved, all);
    };
    if (start) {
      const double whole = static_cast<double>(r.in->lb0 > 0 ? r.in->lb0 : 1);
      for (int64_t o = 0; o < cells; ++o) rank[o] = static_cast<double>(start[i * cells + o]) / whole;
      if (r.options->allow_wait) std::memset(reserved, 1, all);
      keep(s.play());
      ++used;
    } else {
      for (int64_t rule = 0; rule < 4; ++rule, ++used) {
        rule_ranks(r, rule, rank);
        keep(s.play());
      }
    }
    std::memcpy(rank, best_rank, all * sizeof(double));
    std::memcpy(reserved, best_reserved, all);
    int64_t now = s.play();
    s.look();
    // Chosen on random shops of 10x10, 15x15 and 20x5: blocking wants more heat.
    const double hot = (r.is_buffered() ? 0.01 : 0.1) * static_cast<double>(best), cold = 0.1 * hot;
    for (; used < evaluations && best > r.in->lb0; ++used) {
      const double share = static_cast<double>(used) / static_cast<double>(evaluations);
      const double heat = hot * std::pow(cold / hot, share);
      std::memcpy(old_rank, rank, all * sizeof(double));
      std::memcpy(old_reserved, reserved, all);
      s.change(0.2);
      const int64_t value = s.play();
      if (value <= now || (value < kNever && s.dice.unit() < std::exp(static_cast<double>(now - value) / heat))) {
        now = value;
        s.look();
        keep(value);
      } else {
        std::memcpy(rank, old_rank, all * sizeof(double));
        std::memcpy(reserved, old_reserved, all);
      }
    }
    std::memcpy(rank, best_rank, all * sizeof(double));
    std::memcpy(reserved, best_reserved, all);
    s.play();
    std::free(ranks);
    return nullptr;
  });
}
