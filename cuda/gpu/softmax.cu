// Softmax, log-softmax and logsumexp over the edges of each row, and the gradients of the first two.
//
//   -DDTYPE=f32|f64|bf16|f16   type of items
//   -DI=i32|i64                type of perm
//   -DKIND=0|1|2               softmax, log-softmax, logsumexp
//   -DBACKWARD=0|1             1: the gradient of src
//   -DHEADS, -DGROUP           heads; lanes per row (8 or 32, by the average length of rows)
//
// Algorithm: GROUP lanes per row, neighbouring lanes on neighbouring heads, the rest on places. A
//   lane keeps 8 items in registers. A row that fits (8 * GROUP items) is read once; a longer one is
//   read twice, the largest item and the sum of exponentials being kept up chunk by chunk. Rows of
//   more than 1024 edges are done by the whole block, one after the other.
// Bytes: items once (long rows twice), the result once, perm as often as the items. logsumexp writes
//   a value per row only.
// Block: 256 threads, so that a long row has 256 lanes. That is the limit of load balance: one row
//   of a million edges takes its block some 4000 steps, while other blocks may be done.
// Order of sums: a lane adds its items in order, then lanes pairwise, then warps in order. It
//   depends on the length of the row, HEADS and GROUP alone.
#include "gl.cuh"

typedef DTYPE T;
typedef gl_sum_type<T>::type A;

enum Kind { kSoftmax, kLogSoftmax, kLogSumExp };  // as in gnnlab.h
constexpr i32 kThreads = 256;
constexpr i32 kRows = kThreads / GROUP;
constexpr i32 kKept = 8;
constexpr i64 kLong = 1024;

GL_FN constexpr i32 power_of_two(i32 n) {
  i32 power = 1;
  while (power < n) power *= 2;
  return power;
}
constexpr i32 kHeadLanes = HEADS < GROUP ? power_of_two(HEADS) : GROUP;

struct SoftmaxArgs {
  const i64* indptr;
  const I* perm;
  const T* src;   // backward: the result of the forward pass
  const T* grad;  // backward alone
  T* out;
  i64 rows;
};

struct Item {
  A value, grad;
};

// Backward only `total` is used: the sum that the gradient needs.
struct State {
  A largest, total;
};

// Lanes that work on one row together.
struct Team {
  i32 head, first, step;  // first place of this lane, and the distance to its next
  bool live;              // whether there is such a head
};

GL_FN A lowest() { return -(A)gl_float(0x7f800000u); }

// exp(x - largest), with 1 for two equal infinities.
GL_FN A relative(A x, A largest) { return x == largest ? (A)1 : gl_exp(x - largest); }

GL_FN void merge(State& state, const State& other) {
  if (BACKWARD) {
    state.total += other.total;
    return;
  }
  const A largest = other.largest > state.largest ? other.largest : state.largest;
  state.total = state.total * relative(state.largest, largest) +
                other.total * relative(other.largest, largest);
  state.largest = largest;
}

GL_FN State exchanged(u32 mask, const State& state, i32 distance) {
  return State{BACKWARD ? state.largest : gl_shfl_xor(mask, state.largest, distance),
               gl_shfl_xor(mask, state.total, distance)};
}

// Reads this lane's items of a chunk and returns their state.
GL_FN State read(const SoftmaxArgs& a, const Team& team, i64 base, i64 end, Item* kept) {
  State state{lowest(), 0};
  GL_UNROLL
  for (i32 n = 0; n < kKept; n++) {
    const i64 place = base + team.first + n * team.step;
    kept[n] = Item{lowest(), 0};
    if (place < end && team.live) {
      const i64 at = (a.perm ? (i64)a.perm[place] : place) * HEADS + team.head;
      kept[n].value = gl_up(a.src[at]);
      if (BACKWARD) kept[n].grad = gl_up(a.grad[at]);
    }
  }
  if (!BACKWARD) {
    GL_UNROLL
    for (i32 n = 0; n < kKept; n++)
      if (kept[n].value > state.largest) state.largest = kept[n].value;
  }
  GL_UNROLL
  for (i32 n = 0; n < kKept; n++) {
    const i64 place = base + team.first + n * team.step;
    if (place >= end || !team.live) continue;
    if (!BACKWARD)
      state.total += relative(kept[n].value, state.largest);
    else
      state.total += KIND == kSoftmax ? kept[n].value * kept[n].grad : kept[n].grad;
  }
  return state;
}

GL_FN A result(const Item& item, const State& state, A scale) {
  if (BACKWARD && KIND == kSoftmax) return item.value * (item.grad - state.total);
  if (BACKWARD) return item.grad - gl_exp(item.value) * state.total;
  if (KIND == kSoftmax) return gl_exp(item.value - state.largest) * scale;
  return item.value - state.largest - scale;
}

GL_FN void write(const SoftmaxArgs& a, const Team& team, i64 base, i64 end, const Item* kept,
                 const State& state, A scale) {
  GL_UNROLL
  for (i32 n = 0; n < kKept; n++) {
    const i64 place = base + team.first + n * team.step;
    if (place >= end || !team.live) continue;
    const i64 at = (a.perm ? (i64)a.perm[place] : place) * HEADS + team.head;
    a.out[at] = gl_down<T>(result(kept[n], state, scale));
  }
}

// First pass over a row, by this lane alone; `kept` holds the last chunk.
GL_FN State first_pass(const SoftmaxArgs& a, const Team& team, i64 begin, i64 end, Item* kept) {
  State state{lowest(), 0};
  for (i64 base = begin; base < end; base += kKept * team.step)
    merge(state, read(a, team, base, end, kept));
  return state;
}

GL_FN void second_pass(const SoftmaxArgs& a, const Team& team, i64 row, i64 begin, i64 end, Item* kept,
                       const State& state) {
  if (!BACKWARD && KIND == kLogSumExp) {
    const A sum = begin < end ? state.largest + gl_log(state.total) : lowest();
    if (team.first == 0 && team.live) a.out[row * HEADS + team.head] = gl_down<T>(sum);
    return;
  }
  A scale = 0;
  if (!BACKWARD) {
    const A zero = state.largest - state.largest;  // an infinite largest item makes all NaN
    scale = KIND == kSoftmax ? gl_exp(zero) / state.total : gl_log(state.total) + zero;
  }
  const i64 chunk = kKept * team.step;
  for (i64 base = begin; base < end; base += chunk) {
    if (end - begin > chunk) read(a, team, base, end, kept);
    write(a, team, base, end, kept, state, scale);
  }
}

GL_KERNEL(softmax, SoftmaxArgs, kThreads) {
  GL_SHARED(State, states);
  Item kept[kKept];
  const i64 first_row = gl_block() * kRows;
  const i32 lane = gl_thread() % GROUP;
  Team team;
  team.head = (i32)gl_block_y() * kHeadLanes + lane % kHeadLanes;
  team.live = team.head < HEADS;
  team.first = lane / kHeadLanes;
  team.step = GROUP / kHeadLanes;

  const i64 row = first_row + gl_thread() / GROUP;
  if (row < a.rows) {
    const i64 begin = a.indptr[row], end = a.indptr[row + 1];
    if (end - begin <= kLong) {
      const u32 mask = gl_group_mask(GROUP);
      State state = first_pass(a, team, begin, end, kept);
      for (i32 distance = kHeadLanes; distance < GROUP; distance *= 2)
        merge(state, exchanged(mask, state, distance));
      second_pass(a, team, row, begin, end, kept, state);
    }
  }

  const i64 past = first_row + kRows < a.rows ? first_row + kRows : a.rows;
  if (a.indptr[past] - a.indptr[first_row] <= kLong) return;
  team.first = gl_thread() / kHeadLanes;
  team.step = kThreads / kHeadLanes;
  for (i64 r = first_row; r < past; r++) {
    const i64 begin = a.indptr[r], end = a.indptr[r + 1];
    if (end - begin <= kLong) continue;
    State state = first_pass(a, team, begin, end, kept);
    for (i32 distance = kHeadLanes; distance < 32; distance *= 2)
      merge(state, exchanged(GL_ALL, state, distance));
    if (gl_lane() < kHeadLanes) states[gl_warp() * kHeadLanes + gl_lane()] = state;
    gl_syncthreads();
    state = states[gl_lane() % kHeadLanes];
    for (i32 warp = 1; warp < kThreads / 32; warp++)
      merge(state, states[warp * kHeadLanes + gl_lane() % kHeadLanes]);
    gl_syncthreads();
    second_pass(a, team, r, begin, end, kept, state);
  }
}
