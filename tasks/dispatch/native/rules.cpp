// Priority rules: whole episodes without leaving C++.
//
// Algorithm: on the first open machine, the candidate with the smallest key, the lowest job among
//   equals. Keys are doubles computed in the order that rules.py writes them, so both give the same.
// Cost: one key per candidate; WINQ reads a sum that the simulator keeps up to date.
#include <cmath>

#include "batch.h"
#include "rules.h"

namespace gnnlab::dispatch {
namespace {

// In the order of RULES in rules.py.
enum Rule {
  kFifo, kLifo, kSpt, kLpt, kLwkr, kMwkr, kLopnr, kMopnr, kSptTwk, kSptTwkr, kLptTwk, kFddMwkr, kWinq, kNinq,
  kLbocc, kAtc, kCr, kRandom, kRules
};

struct Moment {   // what keys of one decision share
  double mean_time;  // of the candidates
};

double key(const Row& r, int64_t rule, int64_t j, const Moment& moment) {
  const int64_t i = r.next[j];
  const int64_t* tail = r.in->tail + j * (r.in->longest + 1);
  const double p = static_cast<double>(r.next_time(j)), rem = static_cast<double>(tail[i]);
  const double tot = static_cast<double>(tail[0]), done = static_cast<double>(tail[0] - tail[i]);
  const double now = static_cast<double>(r.head->time), due = 1.3 * tot;
  const bool is_last = i + 1 == r.in->length[j];
  switch (rule) {
    case kFifo: return static_cast<double>(r.ready[j]);
    case kLifo: return -static_cast<double>(r.ready[j]);
    case kSpt: return p;
    case kLpt: return -p;
    case kLwkr: return rem;
    case kMwkr: return -rem;
    case kLopnr: return static_cast<double>(r.in->length[j] - i);
    case kMopnr: return -static_cast<double>(r.in->length[j] - i);
    case kSptTwk: return tot > 0 ? p / tot : 0;
    case kSptTwkr: return rem > 0 ? p / rem : 0;
    case kLptTwk: return -p * tot;
    case kFddMwkr: return rem > 0 ? (done + p) / rem : HUGE_VAL;
    case kWinq: return is_last ? 0 : static_cast<double>(r.queue_work[r.in->machine[r.op(j, i + 1)]]);
    case kAtc: {
      const double work = p > 0 ? p : 1, slack = due - work - now - (rem - work);
      return -(1 / work) * std::exp(-(slack > 0 ? slack : 0) / (2 * moment.mean_time));
    }
    case kCr: return rem > 0 ? (due - now) / rem : HUGE_VAL;
    case kNinq: return is_last ? 0 : static_cast<double>(r.queued[r.in->machine[r.op(j, i + 1)]]);
    case kLbocc: {
      const int64_t other = is_last ? -1 : r.occupant[r.in->machine[r.op(j, i + 1)]];
      return other >= 0 && r.status[other] == kBlocked ? 1 : 0;
    }
    default: return 0;
  }
}

}  // namespace

bool is_rule(int64_t rule) { return rule >= 0 && rule < kRules; }

int64_t choose(const Row& r, const Mix& mix, uint64_t seed, int64_t decision) {
  const int64_t k = r.head->focus;
  const uint64_t* queue = r.queue + k * r.words;
  Moment moment{0};
  int64_t count = 0;
  bool wants_count = false;
  for (int64_t s = 0; s < mix.count; ++s) wants_count |= mix.rules[s] == kRandom || mix.rules[s] == kAtc;
  if (wants_count) {
    double work = 0;
    each_job(queue, r.words, [&](int64_t j) {
      if (may_move(r, j)) {
        ++count;
        work += r.next_time(j) > 0 ? static_cast<double>(r.next_time(j)) : 1;
      }
      return false;
    });
    moment.mean_time = work / static_cast<double>(count);
  }
  if (mix.count == 1 && mix.rules[0] == kRandom) {
    int64_t left = static_cast<int64_t>(uniform(seed, 0, static_cast<uint64_t>(decision)) * static_cast<double>(count));
    int64_t found = -1;
    each_job(queue, r.words, [&](int64_t j) {
      if (!may_move(r, j)) return false;
      found = j;
      return left-- == 0;
    });
    return found;
  }
  int64_t best = -1;
  double least = 0;
  each_job(queue, r.words, [&](int64_t j) {
    if (!may_move(r, j)) return false;
    double value;
    if (mix.count == 1) {
      value = mix.weights[0] == 1 ? key(r, mix.rules[0], j, moment) : mix.weights[0] * key(r, mix.rules[0], j, moment);
    } else {
      value = 0;
      for (int64_t s = 0; s < mix.count; ++s) value += mix.weights[s] * key(r, mix.rules[s], j, moment);
    }
    if (best < 0 || value < least) {
      best = j;
      least = value;
    }
    return false;
  });
  return best;
}

}  // namespace gnnlab::dispatch

using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_rules(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* rules,
                                         const double* weights, int64_t num_rules, const uint64_t* seeds, int threads) {
  for (int64_t s = 0; s < num_rules; ++s)
    if (!is_rule(rules[s])) return gnnlab::fail(GNNLAB_BAD_ARGUMENT, "there is no such priority rule");
  const Mix mix{rules, weights, num_rules};
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t i) {
    for (int64_t decision = 0; !r.head->flags; ++decision) {
      ++r.head->steps;
      move(r, choose(r, mix, seeds ? seeds[i] : 0, decision));
      settle(r, false);
    }
    return nullptr;
  });
}
