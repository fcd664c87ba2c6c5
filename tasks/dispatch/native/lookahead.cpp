// Lookahead: what each legal action is worth, judged by finishing the episode many times.
//
// Algorithm: the state is copied, the action done, and the episode finished by each of some priority
//   rules; then several times by these rules in turn, which now and then (with probability `noise`)
//   take any candidate instead, or by the guide if there is one. The future is the expected one:
//   shutdowns of now end as known, no others follow. An action's values are the makespans of the
//   rules, and mean and least of the noisy ones. All actions of a decision meet the same random numbers.
//   The best episode is kept as a plan (nested rollout search with memory, Cazenave, IJCAI 2009): what
//   has been seen once is not lost because later episodes have worse luck. rollouts.py gives the same.
// Cost: actions x rollouts episodes per decision; two copies of the state per row, nothing else.
#include <cstdlib>

#include "batch.h"
#include "dice.h"
#include "guide.h"
#include "rules.h"

namespace gnnlab::dispatch {
namespace {

int64_t any_candidate(const Row& r, Dice& dice) {
  const uint64_t* queue = r.queue + r.head->focus * r.words;
  int64_t count = 0, found = -1;
  each_job(queue, r.words, [&](int64_t j) {
    count += may_move(r, j);
    return false;
  });
  int64_t left = dice.below(count);
  each_job(queue, r.words, [&](int64_t j) {
    if (!may_move(r, j)) return false;
    found = j;
    return left-- == 0;
  });
  return found;
}

// Plays an episode to its end; pick chooses the next job.
template <typename Pick>
int64_t finish(Row& r, const Pick& pick) {
  while (!r.head->flags) {
    ++r.head->steps;
    move(r, pick());
    settle(r, false);
  }
  const int64_t span = makespan(r);
  return span < 0 ? 4 * r.in->total : span;
}

int64_t finish_by_rule(Row& r, int64_t rule, double noise, Dice dice) {
  const Mix mix{&rule, &kOne, 1};
  return finish(r, [&] {
    return noise > 0 && dice.unit() < noise ? any_candidate(r, dice) : choose(r, mix, dice.state, 0);
  });
}

// The best episode seen of a row; span is null where none is kept.
struct Plan {
  int64_t *span, *next;
  int32_t* before;

  bool is_there() const { return span && *span < kNever; }

  // Finds the job that the plan puts on the first open machine now: its operation comes next there.
  void recall(const Row& r) const {
    if (!is_there()) return;
    const int64_t k = r.head->focus;
    const bool is_found = each_job(r.queue + k * r.words, r.words, [&](int64_t j) {
      *next = j;
      return may_move(r, j) && before[r.op(j, r.next[j])] == r.last[k];
    });
    if (!is_found) *span = kNever;
  }

  // Takes over an episode that began with `action` and is played, if it is better.
  void meet(const Row& trial, int64_t action) const {
    const int64_t found = span ? makespan(trial) : -1;
    if (found < 0 || found >= *span) return;
    *span = found;
    *next = action;
    std::memcpy(before, trial.before, static_cast<size_t>(trial.in->jobs * trial.in->longest) * sizeof(int32_t));
  }
};

Plan plan_of(const gnnlab_shop_plans* plans, const Row& r, int64_t row) {
  if (!plans || r.how->trace || r.how->cut_after) return {nullptr, nullptr, nullptr};
  return {plans->span + row, plans->next + row, plans->before + row * plans->cells};
}

}  // namespace
}  // namespace gnnlab::dispatch

using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_values(const gnnlab_shop* shop, const int64_t* rows, int64_t count,
                                          const int64_t* rules, int64_t num_rules, double noise, int64_t rollouts,
                                          const uint64_t* seeds, const gnnlab_shop_plans* plans, const double* guide,
                                          int64_t* values, int threads) {
  for (int64_t s = 0; s < num_rules; ++s)
    if (!is_rule(rules[s])) return gnnlab::fail(GNNLAB_BAD_ARGUMENT, "there is no such priority rule");
  const int64_t width = shop->most_jobs + 1;
  const size_t bytes = static_cast<size_t>(shop->row_bytes);
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t i) -> const char* {
    char* memory = static_cast<char*>(std::malloc(2 * bytes + static_cast<size_t>(width) * (sizeof(double) + 1)));
    if (!memory) return "out of memory";
    double* scores = reinterpret_cast<double*>(memory + 2 * bytes);
    uint8_t* legal = reinterpret_cast<uint8_t*>(scores + width);
    const Inverse inverse(*r.in);
    write_mask(r, legal, width);
    const Plan plan = plan_of(plans, r, rows ? rows[i] : i);
    if (!r.head->flags) plan.recall(r);
    gnnlab_shop_row calm = *r.how;  // no more shutdowns, but repairs of those that have begun
    calm.trace = calm.trace ? 1 : 0;
    calm.prob = 0;
    calm.cut_after = nullptr;
    Row first = row_at(r, memory, &calm), trial = row_at(r, memory + bytes, &calm);
    for (int64_t a = 0; a < width; ++a) {
      int64_t* value = values + (i * width + a) * (num_rules + 2);
      for (int64_t v = 0; v < num_rules + 2; ++v) value[v] = -1;
      if (!legal[a]) continue;
      std::memcpy(memory, reinterpret_cast<const char*>(r.head), bytes);
      calm_down(r, first);
      ++first.head->steps;
      if (a < width - 1) {
        move(first, a);
      } else {
        for (int64_t k = first.head->focus; k < first.in->machines; ++k)
          if (!r.options->focus || k == first.head->focus) first.declined[k] = 1;
      }
      settle(first, false);
      double sum = 0;
      int64_t least = kNever;
      for (int64_t t = 0; t < num_rules + rollouts; ++t) {
        std::memcpy(memory + bytes, memory, bytes);
        Dice dice = {((seeds ? seeds[i] : 0) + static_cast<uint64_t>(t) + 1) * 0x9E3779B97F4A7C15u};
        const bool is_plain = t < num_rules;
        const int64_t rule = rules[(is_plain ? t : t - num_rules) % num_rules];
        const int64_t span =
            guide && !is_plain ? finish(trial, [&] { return choose_guided(trial, inverse, guide, dice, scores); })
                               : finish_by_rule(trial, rule, is_plain ? 0 : noise, dice);
        plan.meet(trial, a);
        if (is_plain) value[t] = span;
        if (is_plain && rollouts) continue;
        sum += static_cast<double>(span);
        least = span < least ? span : least;
      }
      value[num_rules] = static_cast<int64_t>(sum / static_cast<double>(rollouts ? rollouts : num_rules) + 0.5);
      value[num_rules + 1] = least;
    }
    if (!r.head->flags && plan.is_there()) {
      int64_t& least = values[(i * width + *plan.next) * (num_rules + 2) + num_rules + 1];
      least = *plan.span < least ? *plan.span : least;
    }
    std::free(memory);
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_guide(const gnnlab_shop* shop, const int64_t* rows, int64_t count, double* out,
                                         int threads) {
  const int64_t width = shop->most_jobs;
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t i) {
    double* f = out + i * width * kGuideFacts;
    std::memset(f, 0, static_cast<size_t>(width * kGuideFacts) * sizeof(double));
    if (r.head->flags) return nullptr;
    const int64_t k = r.head->focus;
    const Inverse inverse(*r.in);
    each_job(r.queue + k * r.words, r.words, [&](int64_t j) {
      if (may_move(r, j)) guide_facts(r, j, k, inverse, f + j * kGuideFacts);
      return false;
    });
    return nullptr;
  });
}
