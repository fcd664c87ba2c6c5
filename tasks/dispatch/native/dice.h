// Random numbers of search and lookahead: xorshift64*, a state per row, so that results depend on
// neither order nor threads.
#pragma once

#include <cstdint>

namespace gnnlab::dispatch {

struct Dice {
  uint64_t state;
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1Du;
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  int64_t below(int64_t bound) { return static_cast<int64_t>(unit() * static_cast<double>(bound)); }
};

}  // namespace gnnlab::dispatch
