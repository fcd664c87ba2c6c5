// The names of gl.cuh for the emulator: the same kernels compiled as C++ and run without a GPU.
//
// Kernels are compiled with -fsanitize=thread, but the callbacks that this inserts before every load
// and store are the emulator's own (emulator.cpp), which checks bounds, alignment and races.
#pragma once

#include <math.h>

#define GL_KERNEL(name, Args, threads)            \
  extern "C" const int name##_threads = threads; \
  extern "C" void name(const Args& a)
#define GL_FN static inline __attribute__((always_inline, unused))
#define GL_METHOD inline
#define GL_SHARED(type, name) type* const name = (type*)gl_shared_memory()
#define GL_UNROLL
#define GL_ALIGNED(pointer, bytes) gl_check_aligned(pointer, bytes)

#include "operation.h"

extern "C" {
int gl_emulated_thread();
int gl_emulated_threads();
long long gl_emulated_block(int axis);
long long gl_emulated_blocks();
void* gl_shared_memory();
void gl_barrier(int line);
// Waits for all lanes of the mask; returns what lane `source` brought, or the lanes that brought 1.
unsigned long long gl_meet(int operation, unsigned mask, unsigned long long value, int source,
                           int line);
void gl_check_aligned(const void* pointer, int bytes);
void gl_check_atomic(void* pointer, int bytes);
}

#define GL_LINE int line = __builtin_LINE()

GL_FN i32 gl_thread() { return gl_emulated_thread(); }
GL_FN i32 gl_threads() { return gl_emulated_threads(); }
GL_FN i64 gl_block() { return gl_emulated_block(0); }
GL_FN i64 gl_block_y() { return gl_emulated_block(1); }
GL_FN i64 gl_blocks() { return gl_emulated_blocks(); }
GL_FN void gl_syncthreads(GL_LINE) { gl_barrier(line); }
GL_FN void gl_syncwarp(u32 mask = GL_ALL, GL_LINE) { gl_meet(GL_SYNCWARP, mask, 0, 0, line); }

template <typename To, typename From>
GL_FN To gl_cast_bits(From from) {
  static_assert(sizeof(To) >= sizeof(From) || sizeof(From) == 8, "at most 8 bytes");
  To to = To();
  __builtin_memcpy(&to, &from, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
  return to;
}

// `lane` may lie outside the group of `width` lanes: then the caller's own value comes back.
template <typename T>
GL_FN T gl_shuffle(u32 mask, T value, i32 lane, bool inside, int line) {
  const i32 own = gl_emulated_thread() & 31;
  const u64 bits = gl_cast_bits<u64>(value);
  return gl_cast_bits<T>(gl_meet(GL_SHUFFLE, mask, bits, inside ? lane : own, line));
}
template <typename T>
GL_FN T gl_shfl(u32 mask, T value, i32 lane, i32 width = 32, GL_LINE) {
  const i32 first = (gl_emulated_thread() & 31) & ~(width - 1);
  return gl_shuffle(mask, value, first + (lane & (width - 1)), true, line);
}
template <typename T>
GL_FN T gl_shfl_xor(u32 mask, T value, i32 distance, i32 width = 32, GL_LINE) {
  const i32 own = gl_emulated_thread() & 31;
  return gl_shuffle(mask, value, own ^ distance, distance < width, line);
}
template <typename T>
GL_FN T gl_shfl_down(u32 mask, T value, i32 distance, i32 width = 32, GL_LINE) {
  const i32 own = gl_emulated_thread() & 31;
  return gl_shuffle(mask, value, own + distance, (own & (width - 1)) + distance < width, line);
}
template <typename T>
GL_FN T gl_shfl_up(u32 mask, T value, i32 distance, i32 width = 32, GL_LINE) {
  const i32 own = gl_emulated_thread() & 31;
  return gl_shuffle(mask, value, own - distance, (own & (width - 1)) >= distance, line);
}
GL_FN u32 gl_ballot(u32 mask, bool flag, GL_LINE) {
  return (u32)gl_meet(GL_BALLOT, mask, flag, 0, line);
}
template <typename T>
__attribute__((no_sanitize_thread)) static inline T gl_atomic_add(T* at, T value) {
  gl_check_atomic(at, sizeof(T));
  const T before = *at;
  *at = before + value;
  return before;
}

GL_FN u32 gl_bits(f32 x) { return gl_cast_bits<u32>(x); }
GL_FN f32 gl_float(u32 bits) { return gl_cast_bits<f32>(bits); }
GL_FN f32 gl_exp(f32 x) { return expf(x); }
GL_FN f64 gl_exp(f64 x) { return exp(x); }
GL_FN f32 gl_log(f32 x) { return logf(x); }
GL_FN f64 gl_log(f64 x) { return log(x); }
GL_FN f32 gl_sqrt(f32 x) { return sqrtf(x); }
GL_FN f64 gl_sqrt(f64 x) { return sqrt(x); }
GL_FN i32 gl_popcount(u32 x) { return __builtin_popcount(x); }
GL_FN i32 gl_first_bit(u32 x) { return __builtin_ffs((int)x) - 1; }
GL_FN u32 gl_mul_high(u32 x, u32 y) { return (u32)((u64)x * y >> 32); }

#undef GL_LINE
