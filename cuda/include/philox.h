// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a block of
// four random words for each counter, whatever was drawn before it. Dropout and sampling use it.
#pragma once

#include <cstdint>

namespace gnnlab::GNNLAB_NS {

struct RandomBlock {
  uint32_t word[4];
};

// The block of counter (low half of `item`, high half of `item`, c2, c3) under the key `seed`.
__attribute__((always_inline)) inline RandomBlock philox_block(uint64_t item, uint32_t c2, uint32_t c3,
                                                               uint64_t seed) {
  uint32_t c0 = static_cast<uint32_t>(item), c1 = static_cast<uint32_t>(item >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c0, b = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(b);
    c3 = static_cast<uint32_t>(a);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace gnnlab::GNNLAB_NS
