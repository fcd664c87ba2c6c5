// All that the kernels use of CUDA, under names that the emulator (cuda/emulator) has too.
//
// Kernels include only this file. They are compiled by NVRTC, without toolkit headers, once per set
// of -D definitions. Rules:
//   - a kernel takes one struct `a` whose fields are all 8 bytes wide (pointers, i64, f64);
//   - offsets into tensors are i64, indices of edges and rows have the type of the index arrays;
//   - every lane named in a mask reaches the same shuffle, ballot or gl_syncwarp;
//   - threads that share memory put gl_syncthreads (or gl_syncwarp, inside a warp) between a write
//     and another thread's access: a shuffle orders no memory.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// Definitions given by -D must not be named like a template parameter here (T, A, N, To, From).
#define GL_ALL 0xffffffffu  // every lane of a warp

#ifdef GL_EMULATED
#include "cuda_shim.h"
#else

// GL_KERNEL(name, Args, threads) { ... a.field ... }: a kernel for blocks of at most `threads`.
#define GL_KERNEL(name, Args, threads) \
  extern "C" __global__ void __launch_bounds__(threads) name(const Args a)
#define GL_FN static __device__ __forceinline__
#define GL_METHOD __device__ __forceinline__  // the same for members of a struct
// GL_SHARED(type, name): `name` points to the block's dynamic shared memory, 16-byte aligned.
#define GL_SHARED(type, name)                                      \
  extern __shared__ __align__(16) unsigned char gl_shared_bytes[]; \
  type* const name = (type*)gl_shared_bytes
#define GL_UNROLL _Pragma("unroll")

GL_FN i32 gl_thread() { return (i32)threadIdx.x; }
GL_FN i32 gl_threads() { return (i32)blockDim.x; }
GL_FN i64 gl_block() { return (i64)blockIdx.x; }
GL_FN i64 gl_block_y() { return (i64)blockIdx.y; }
GL_FN i64 gl_blocks() { return (i64)gridDim.x; }

GL_FN void gl_syncthreads() { __syncthreads(); }
GL_FN void gl_syncwarp(u32 mask = GL_ALL) { __syncwarp(mask); }

// Shuffles of i32, u32, i64, u64, f32, f64 among groups of `width` lanes (a power of 2).
template <typename T>
GL_FN T gl_shfl(u32 mask, T value, i32 lane, i32 width = 32) {
  return __shfl_sync(mask, value, lane, width);
}
template <typename T>
GL_FN T gl_shfl_xor(u32 mask, T value, i32 distance, i32 width = 32) {
  return __shfl_xor_sync(mask, value, distance, width);
}
template <typename T>
GL_FN T gl_shfl_down(u32 mask, T value, i32 distance, i32 width = 32) {
  return __shfl_down_sync(mask, value, distance, width);
}
template <typename T>
GL_FN T gl_shfl_up(u32 mask, T value, i32 distance, i32 width = 32) {
  return __shfl_up_sync(mask, value, distance, width);
}
GL_FN u32 gl_ballot(u32 mask, bool flag) { return __ballot_sync(mask, flag); }

// Not for results that must be the same from run to run.
template <typename T>
GL_FN T gl_atomic_add(T* at, T value) {
  return atomicAdd(at, value);
}

GL_FN u32 gl_bits(f32 x) { return __float_as_uint(x); }
GL_FN f32 gl_float(u32 bits) { return __uint_as_float(bits); }
GL_FN f32 gl_exp(f32 x) { return expf(x); }
GL_FN f64 gl_exp(f64 x) { return exp(x); }
GL_FN f32 gl_log(f32 x) { return logf(x); }
GL_FN f64 gl_log(f64 x) { return log(x); }
GL_FN f32 gl_sqrt(f32 x) { return sqrtf(x); }
GL_FN f64 gl_sqrt(f64 x) { return sqrt(x); }
GL_FN i32 gl_popcount(u32 x) { return __popc(x); }
GL_FN i32 gl_first_bit(u32 x) { return __ffs((i32)x) - 1; }  // -1 when x is 0
GL_FN u32 gl_mul_high(u32 x, u32 y) { return __umulhi(x, y); }

// For a pointer that is about to be read as a vector; only the emulator looks.
#define GL_ALIGNED(pointer, bytes)

#endif

GL_FN i32 gl_lane() { return gl_thread() & 31; }
GL_FN i32 gl_warp() { return gl_thread() >> 5; }

// Mask of the lanes in this thread's group of `width` lanes (a power of 2, at most 32).
GL_FN u32 gl_group_mask(i32 width) {
  return width == 32 ? GL_ALL : ((1u << width) - 1u) << (gl_lane() & ~(width - 1));
}

// 16-bit floats as bits; all arithmetic is done in f32.
struct bf16 {
  u16 bits;
};
struct f16 {
  u16 bits;
};

// The type in which items of type T are added up.
template <typename T>
struct gl_sum_type {
  typedef T type;
};
template <>
struct gl_sum_type<bf16> {
  typedef f32 type;
};
template <>
struct gl_sum_type<f16> {
  typedef f32 type;
};

GL_FN f32 gl_up(f32 x) { return x; }
GL_FN f64 gl_up(f64 x) { return x; }
GL_FN i32 gl_up(i32 x) { return x; }
GL_FN i64 gl_up(i64 x) { return x; }
GL_FN f32 gl_up(bf16 x) { return gl_float((u32)x.bits << 16); }
GL_FN f32 gl_up(f16 x) {
  const u32 sign = (u32)(x.bits & 0x8000u) << 16;
  const u32 rest = x.bits & 0x7fffu;
  u32 bits = (rest << 13) + (112u << 23);                // exponent bias 15 -> 127
  if (rest >= 0x7c00u) bits = 0x7f800000u | rest << 13;  // infinity and NaN
  if (rest < 0x0400u) bits = gl_bits((f32)rest * 5.9604644775390625e-8f);  // below 2^-14
  return gl_float(bits | sign);
}

// Rounds to nearest, ties to even; NaN stays NaN.
GL_FN u16 gl_bf16_bits(f32 x) {
  const u32 bits = gl_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)(bits >> 16 | 0x40u);
  return (u16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
GL_FN u16 gl_f16_bits(f32 x) {
  const u32 bits = gl_bits(x);
  const u32 rest = bits & 0x7fffffffu;
  const u32 sign = bits >> 16 & 0x8000u;
  if (rest > 0x7f800000u) return (u16)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
  if (rest >= 0x47800000u) return (u16)(sign | 0x7c00u);  // 65536 and more
  if (rest < 0x38800000u)  // below 2^-14: an item of 0.5f's last place is 2^-24
    return (u16)(sign | (gl_bits(gl_float(rest) + 0.5f) - 0x3f000000u));
  return (u16)(sign | (rest + 0xfffu + (rest >> 13 & 1u) - (112u << 23)) >> 13);
}

// gl_down<T>(x): a sum as an item of type T.
template <typename T>
struct gl_rounding {
  static GL_METHOD T apply(T x) { return x; }
};
template <>
struct gl_rounding<bf16> {
  static GL_METHOD bf16 apply(f32 x) { return bf16{gl_bf16_bits(x)}; }
};
template <>
struct gl_rounding<f16> {
  static GL_METHOD f16 apply(f32 x) { return f16{gl_f16_bits(x)}; }
};
template <typename T, typename A>
GL_FN T gl_down(A x) {
  return gl_rounding<T>::apply(x);
}

// N items side by side, read and written in one instruction (at most 16 bytes).
template <typename T, i32 N>
struct alignas(sizeof(T) * N) gl_vec {
  T item[N];
};
template <i32 N, typename T>
GL_FN gl_vec<T, N> gl_load(const T* at) {
  GL_ALIGNED(at, sizeof(T) * N);
  return *(const gl_vec<T, N>*)at;
}
template <typename T, i32 N>
GL_FN void gl_store(T* at, const gl_vec<T, N>& value) {
  GL_ALIGNED(at, sizeof(T) * N);
  *(gl_vec<T, N>*)at = value;
}
