// Shutdowns: random windows of a machine, and when work that meets them is done.
//
// Algorithm: window w of machine k comes from numbers 2w and 2w + 1 of the stream Philox 4x64-10
//   with the key (seed, k) and counters from 1, which is what numpy.random.Philox yields. Streams
//   are read by index: nothing is stored, and no draw depends on what a schedule does.
#include <cmath>

#include "shop.h"

namespace gnnlab::dispatch {
namespace {

struct Block { uint64_t word[4]; };

inline uint64_t high_product(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}

Block philox(uint64_t key0, uint64_t key1, uint64_t counter) {
  constexpr uint64_t m0 = 0xD2E7470EE14C6C93u, m1 = 0xCA5A826395121157u;
  Block c = {{counter, 0, 0, 0}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t h0 = high_product(m0, c.word[0]), l0 = m0 * c.word[0];
    const uint64_t h1 = high_product(m1, c.word[2]), l1 = m1 * c.word[2];
    c = {{h1 ^ c.word[1] ^ key0, l1, h0 ^ c.word[3] ^ key1, l0}};
    key0 += 0x9E3779B97F4A7C15u;
    key1 += 0xBB67AE8584CAA73Bu;
  }
  return c;
}

inline double to_unit(uint64_t word) { return static_cast<double>(word >> 11) * 0x1p-53; }

// The trial of the first success; as gnnlab.tasks.dispatch.trace computes it.
int64_t geometric(double u, double prob) {
  if (prob >= 1) return 1;
  const double scale = std::log(1 - prob);
  if (scale == 0) return kNever / 4;
  const double trials = 1 + std::floor(std::log(1 - u) / scale);
  return trials < static_cast<double>(kNever / 4) ? static_cast<int64_t>(trials) : kNever / 4;
}

int64_t duration(const gnnlab_shop_row& how, double u) {
  if (how.duration == 1) return how.low;
  if (how.duration == 2) return geometric(u, 1 / (static_cast<double>(how.low + how.high) / 2));
  return how.low + static_cast<int64_t>(u * static_cast<double>(how.high - how.low + 1));
}

}  // namespace

Window following(const Row& r, int64_t machine, int64_t index, int64_t last) {
  const gnnlab_shop_row& how = *r.how;
  if (how.trace == 2) {
    const int64_t at = how.starts[machine] + index;
    if (at >= how.starts[machine + 1]) return {kNever, kNever};
    return {how.windows[2 * at], how.windows[2 * at + 1]};
  }
  if (how.trace == 0 || how.prob == 0 || last >= kNever / 2) return {kNever, kNever};
  const Block block = philox(how.seed, static_cast<uint64_t>(machine), static_cast<uint64_t>(index) / 2 + 1);
  const int lane = 2 * (index & 1);
  const int64_t from = last + geometric(to_unit(block.word[lane]), how.prob);
  return {from, from + duration(how, to_unit(block.word[lane + 1]))};
}

double uniform(uint64_t key0, uint64_t key1, uint64_t index) {
  return to_unit(philox(key0, key1, index / 4 + 1).word[index & 3]);
}

int64_t end_of_work(const Row& r, int64_t j, int64_t i, int64_t k, int64_t from) {
  const int64_t o = r.op(j, i), work = r.in->time[o];
  if (r.how->cut_after && r.how->cut_after[o] >= 0 && work > 0)
    return from + work + r.how->cut_duration[o] + (r.options->restart ? r.how->cut_after[o] : 0);
  Window w = {r.down_from[k], r.down_to[k]};
  int64_t index = r.window[k], left = work;
  while (from + left > w.from) {  // the machine is up at `from`, so from < w.from
    if (!r.options->restart) left -= w.from - from;
    from = w.to;
    w = following(r, k, ++index, w.to);
  }
  return from + left;
}

int64_t work_left(const Row& r, int64_t k) {
  if (r.until[k] >= kNever) return 0;
  const int64_t j = r.occupant[k], i = r.next[j] - 1, o = r.op(j, i), now = r.head->time;
  if (r.how->cut_after && r.how->cut_after[o] >= 0) {
    const int64_t cut = r.began[k] + r.how->cut_after[o], back = cut + r.how->cut_duration[o];
    if (now < cut) return r.began[k] + r.in->time[o] - now;
    if (now < back) return r.in->time[o] - (r.options->restart ? 0 : r.how->cut_after[o]);
    return r.until[k] - now;
  }
  const bool is_down = r.is_down(k);
  if (r.options->restart) {
    const int64_t since = r.repaired[k] > r.began[k] ? r.repaired[k] : r.began[k];
    return is_down ? r.in->time[o] : r.in->time[o] - (now - since);
  }
  // The time until the end, without the windows in between.
  int64_t left = r.until[k] - now, index = r.window[k];
  Window w = {r.down_from[k], r.down_to[k]};
  if (is_down) w.from = now;
  while (w.from < r.until[k]) {
    left -= w.to - w.from;
    w = following(r, k, ++index, w.to);
  }
  return left;
}

int64_t end_seen(const Row& r, int64_t k, int64_t left) {
  if (r.until[k] >= kNever) return kNever;
  const int64_t j = r.occupant[k], o = r.op(j, r.next[j] - 1);
  int64_t from = r.is_down(k) ? r.down_to[k] : r.head->time;
  if (r.how->cut_after && r.how->cut_after[o] >= 0) {  // a cut that has come ends as known
    const int64_t cut = r.began[k] + r.how->cut_after[o], back = cut + r.how->cut_duration[o];
    if (r.head->time >= cut && r.head->time < back) from = back;
  }
  return from + left;
}

void calm_down(const Row& r, Row& copy) {
  if (!r.how->trace && !r.how->cut_after) return;
  for (int64_t k = 0; k < r.in->machines; ++k) {
    if (!r.is_down(k)) copy.down_from[k] = copy.down_to[k] = kNever;
    if (r.until[k] >= kNever) continue;
    const int64_t j = r.occupant[k];
    copy.until[k] = copy.end[r.op(j, r.next[j] - 1)] = end_seen(r, k, work_left(r, k));
  }
}

}  // namespace gnnlab::dispatch
