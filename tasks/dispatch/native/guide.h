// The guide: a learned priority rule, cheap enough to finish episodes in lookahead.
//
// Algorithm: a candidate's score is a weighted sum of the facts below; one is drawn with probability
//   softmax(scores). guide.py draws the same jobs, guide_fit.py finds the weights.
// Cost: some forty operations and an exponential per candidate.
#pragma once

#include <cmath>

#include "dice.h"
#include "shop.h"

namespace gnnlab::dispatch {

constexpr int64_t kGuideFacts = GNNLAB_SHOP_GUIDE_FACTS;

// Facts about job j, which may move onto machine k now; their names: GUIDE_FACTS in guide.py.
inline void guide_facts(const Row& r, int64_t j, int64_t k, const Inverse& s, double* f) {
  const int64_t i = r.next[j], from = r.place[j], now = r.head->time;
  const int64_t* tail = r.in->tail + j * (r.in->longest + 1);
  const double p = static_cast<double>(r.next_time(j)), rem = static_cast<double>(tail[i] > 0 ? tail[i] : 1);
  const double tot = static_cast<double>(tail[0] > 0 ? tail[0] : 1);
  const bool is_outside = i == 0, is_last = i + 1 == r.in->length[j];
  const double inside = static_cast<double>(r.head->inside) * s.machines;
  f[0] = p * s.unit;
  f[1] = rem * s.whole;
  f[2] = p / rem;
  f[3] = (tot - rem + p) / (tot + p);
  f[4] = static_cast<double>(now - r.ready[j]) * (0.25 * s.unit);
  f[5] = is_outside;
  f[6] = is_outside ? inside : 0;
  f[7] = is_last;
  f[8] = from >= 0 ? static_cast<double>(r.queued[from]) * s.jobs : 0;
  f[9] = from >= 0 ? static_cast<double>(r.load[from]) * s.whole : 0;
  for (int64_t c = 10; c < kGuideFacts; ++c) f[c] = 0;
  if (is_last) return;
  const int64_t n = r.in->machine[r.op(j, i + 1)], other = r.occupant[n];
  const bool is_blocked = other >= 0 && r.status[other] == kBlocked;
  f[10] = static_cast<double>(r.in->time[r.op(j, i + 1)]) * s.unit;
  f[11] = static_cast<double>(r.queued[n]) * s.jobs;
  f[12] = static_cast<double>(r.queue_work[n]) * (0.1 * s.unit);
  f[13] = static_cast<double>(r.load[n]) * s.whole;
  f[14] = is_blocked;
  f[15] = is_outside && is_blocked;
  f[16] = is_blocked && !r.holds[n] && r.next_machine(other) == k;
  f[17] = other >= 0 && !is_blocked;
  if (other >= 0 && !is_blocked) {
    const double late = static_cast<double>(r.until[n] - now) * s.unit - f[0];
    f[18] = late > 0 ? late : 0;
    f[19] = is_outside && late > 0 ? late : 0;
  }
}

// Draws the job that goes onto the first open machine.
inline int64_t choose_guided(const Row& r, const Inverse& s, const double* weights, Dice& dice, double* scores) {
  const int64_t k = r.head->focus;
  const uint64_t* queue = r.queue + k * r.words;
  int64_t count = 0, only = -1;
  each_job(queue, r.words, [&](int64_t j) {
    count += may_move(r, j);
    only = may_move(r, j) ? j : only;
    return count > 1;
  });
  if (count < 2) return only;
  double most = -HUGE_VAL, f[kGuideFacts];
  each_job(queue, r.words, [&](int64_t j) {
    if (!may_move(r, j)) return false;
    guide_facts(r, j, k, s, f);
    double score = 0;
    for (int64_t c = 0; c < kGuideFacts; ++c) score += weights[c] * f[c];
    scores[j] = score;
    most = score > most ? score : most;
    return false;
  });
  double sum = 0;
  each_job(queue, r.words, [&](int64_t j) {
    if (may_move(r, j)) sum += scores[j] = std::exp(scores[j] - most);
    return false;
  });
  double left = dice.unit() * sum;
  int64_t found = -1;
  each_job(queue, r.words, [&](int64_t j) {
    if (!may_move(r, j)) return false;
    found = j;
    left -= scores[j];
    return left < 0;
  });
  return found;
}

}  // namespace gnnlab::dispatch
