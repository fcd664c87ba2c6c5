// Small kernels for tests/ops/test_emulator.py: one that is right, and the same with one mistake
// each, chosen by -DMISTAKE=...
#include "gl.cuh"

#define NONE 0
#define NO_BARRIER 1       // between writing and reading shared memory
#define WRONG_TAIL 2       // the last block writes behind the end
#define TAIL_SHUFFLE 3     // lanes behind the end leave before a shuffle
#define WRONG_MASK 4       // a shuffle reads from a lane that its mask lacks
#define BARRIER_IN_BRANCH 5
#define UNWRITTEN 6        // shared memory that nobody has written
#define MISALIGNED 7       // a vector at an odd item
#define BLOCKS_RACE 8      // two blocks write one place
#define NO_SYNCWARP 9      // a shuffle where gl_syncwarp is needed
#define READS_BEFORE 10    // one item before the beginning
#define LOST_LANES 11      // two halves of a warp at different shuffles with one mask
#define FOREVER 12
#define WRITE_AFTER_READ 13  // the next round overwrites what others still read
#define SHARED_END 14      // behind the end of shared memory

struct ToyArgs {
  const f32* x;
  i64 count;
  f32* out;   // of each thread: the sum of its block's items
  f32* total; // of each block
};

GL_KERNEL(toy, ToyArgs, 128) {
  GL_SHARED(f32, items);
  const i64 at = gl_block() * gl_threads() + gl_thread();
  const bool inside = at < a.count;
  if (MISTAKE == TAIL_SHUFFLE && !inside) return;
  f32 value = 0;
  if (MISTAKE == READS_BEFORE) value = a.x[at - 1];
  else if (inside) value = a.x[at];
  if (MISTAKE != UNWRITTEN || gl_thread() != 5) items[gl_thread()] = value;
  if (MISTAKE == SHARED_END) items[gl_thread() + 1] = value;
  if (MISTAKE == BARRIER_IN_BRANCH && gl_thread() < 64) gl_syncthreads();
  if (MISTAKE != NO_BARRIER && MISTAKE != BARRIER_IN_BRANCH) gl_syncthreads();
  f32 sum = 0;
  for (i32 i = gl_lane(); i < gl_threads(); i += 32) sum += items[i];
  if (MISTAKE == WRITE_AFTER_READ) items[gl_thread()] = sum;
  if (MISTAKE == WRONG_MASK) sum += gl_shfl_xor(0x0000ffffu << (gl_lane() & 16), sum, 16);
  else if (MISTAKE == LOST_LANES && gl_lane() < 16) sum += gl_shfl_xor(GL_ALL, sum, 16);
  else sum += gl_shfl_xor(GL_ALL, sum, 16);
  for (i32 step = 8; step > 0; step /= 2) sum += gl_shfl_xor(GL_ALL, sum, step);
  if (MISTAKE == FOREVER)
    while (a.count) a.out[at % a.count] = gl_shfl_xor(GL_ALL, sum, 1);
  if (inside || MISTAKE == WRONG_TAIL) a.out[at] = sum;
  const i64 mine = MISTAKE == BLOCKS_RACE ? 0 : gl_block();
  if (gl_thread() == 0) a.total[mine] = sum;
  if (MISTAKE == MISALIGNED && gl_thread() == 0) gl_store(a.out + 1, gl_load<4>(a.x));
}

// Each warp turns its 32 items round, through shared memory.
GL_KERNEL(turn, ToyArgs, 128) {
  GL_SHARED(f32, items);
  f32* mine = items + 32 * gl_warp();
  const i64 at = gl_block() * gl_threads() + gl_thread();
  for (i32 round = 0; round < 2; round++) {
    mine[gl_lane()] = a.x[at] + round;
    if (MISTAKE == NO_SYNCWARP) gl_shfl(GL_ALL, 0, 0);
    else gl_syncwarp();
    a.out[at] = mine[31 - gl_lane()];
    gl_syncwarp();
  }
}

// Groups of 8 lanes with work of different length: right.
GL_KERNEL(groups, ToyArgs, 128) {
  const i64 at = gl_block() * gl_threads() + gl_thread();
  const u32 mask = gl_group_mask(8);
  f32 sum = 0;
  for (i32 round = 0; round <= (gl_lane() >> 3); round++) {
    f32 value = a.x[at] * (f32)(round + 1);
    for (i32 step = 4; step > 0; step /= 2) value += gl_shfl_xor(mask, value, step, 8);
    sum += value;
    if (gl_ballot(mask, value < 0) == mask) sum += 1000;
  }
  a.out[at] = sum;
}

// Conversions: out[i] = x[i] rounded to T and back.
struct RoundArgs {
  const f32* x;
  i64 count;
  f32* out;
  u16* bf16_bits;
  u16* f16_bits;
  f32* bf16_values;
  f32* f16_values;
};

GL_KERNEL(rounding, RoundArgs, 128) {
  const i64 at = gl_block() * gl_threads() + gl_thread();
  if (at >= a.count) return;
  const bf16 brain = gl_down<bf16>(a.x[at]);
  const f16 half = gl_down<f16>(a.x[at]);
  a.bf16_bits[at] = brain.bits;
  a.f16_bits[at] = half.bits;
  a.bf16_values[at] = gl_up(brain);
  a.f16_values[at] = gl_up(half);
  a.out[at] = gl_down<f32>(gl_up(a.x[at]));
}
