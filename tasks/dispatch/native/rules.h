// Priority rules, shared by whole episodes and by lookahead.
#pragma once

#include "shop.h"

namespace gnnlab::dispatch {

// A weighted sum of keys; 1 rule of weight 1 is that rule.
struct Mix {
  const int64_t* rules;
  const double* weights;
  int64_t count;
};

inline constexpr double kOne = 1;

bool is_rule(int64_t rule);
// The candidate of the first open machine with the smallest key. seed, decision: of RANDOM.
int64_t choose(const Row& r, const Mix& mix, uint64_t seed, int64_t decision);

}  // namespace gnnlab::dispatch
