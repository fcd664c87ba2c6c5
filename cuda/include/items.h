// Items of feature rows: how bfloat16 and float16 become float32 and back, one or a vector at a time.
//
// Widening is exact. Narrowing rounds to nearest even; a NaN stays a (quiet) NaN. Processors with
// conversion instructions give the same bits as the integer arithmetic used elsewhere.
#pragma once

#include <cstdint>

#if defined(__F16C__) || defined(__SSE4_1__)
#include <immintrin.h>
#endif

namespace gnnlab::GNNLAB_NS {

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };

// The type that items of type S are computed in.
template <typename S> struct ComputeOf { using type = S; };
template <> struct ComputeOf<Bf16> { using type = float; };
template <> struct ComputeOf<F16> { using type = float; };
template <typename S> using Compute = typename ComputeOf<S>::type;

// A vector of N lanes; one lane is a plain number.
template <typename T, int N> struct VectorOf { typedef T type __attribute__((vector_size(N * sizeof(T)))); };
template <typename T> struct VectorOf<T, 1> { typedef T type; };
template <typename T, int N> using Vec = typename VectorOf<T, N>::type;

// Integers as wide as T, which comparisons and counters live in.
template <int BYTES> struct IntOf { using type = int32_t; };
template <> struct IntOf<8> { using type = int64_t; };
template <typename T> using Int = typename IntOf<sizeof(T)>::type;

template <typename To, typename From>
inline __attribute__((always_inline)) To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// widen16 and narrow16 work on 32-bit lanes whose low halves hold the 16-bit items.
template <typename S, int N>
inline __attribute__((always_inline)) Vec<float, N> widen16(Vec<uint32_t, N> w) {
  using F = Vec<float, N>;
  using U = Vec<uint32_t, N>;
  if constexpr (sizeof(S) == 2 && __is_same(S, Bf16)) {
    return bits_as<F>(static_cast<U>(w << 16));
  } else {
    const U sign = (w & 0x8000u) << 16, rest = (w & 0x7fffu) << 13, exponent = rest & 0x0f800000u;
    const U normal = rest + 0x38000000u, special = normal + 0x38000000u;
    const F small = bits_as<F>(static_cast<U>(rest + 0x38800000u)) - bits_as<float>(0x38800000u);
    U result = exponent == 0x0f800000u ? special : normal;
    result = exponent == 0u ? bits_as<U>(small) : result;
    return bits_as<F>(static_cast<U>(result | sign));
  }
}

template <typename S, int N>
inline __attribute__((always_inline)) Vec<uint32_t, N> narrow16(Vec<float, N> v) {
  using F = Vec<float, N>;
  using U = Vec<uint32_t, N>;
  const U u = bits_as<U>(v), rest = u & 0x7fffffffu;
  if constexpr (__is_same(S, Bf16)) {
    const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return rest > 0x7f800000u ? static_cast<U>((u >> 16) | 0x40u) : rounded;
  } else {
    const U sign = (u >> 16) & 0x8000u;
    const U normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
    // Adding 0.5 leaves a small number's last 10 bits, rounded, at the end of the significand.
    const U small = bits_as<U>(static_cast<F>(bits_as<F>(rest) + 0.5f)) - 0x3f000000u;
    const U nan = 0x7e00u | ((rest >> 13) & 0x3ffu);
    U result = rest < 0x38800000u ? small : normal;
    result = rest >= 0x47800000u ? static_cast<U>(U{} + 0x7c00u) : result;
    result = rest > 0x7f800000u ? nan : result;
    return result | sign;
  }
}

// N items at p as a vector to compute with.
template <typename S, int N>
inline __attribute__((always_inline)) Vec<Compute<S>, N> load(const S* p) {
  if constexpr (sizeof(S) > 2) {
    Vec<S, N> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  } else if constexpr (N == 1) {
#if defined(__F16C__)
    if constexpr (__is_same(S, F16)) return _cvtsh_ss(p->bits);
#endif
    return widen16<S, 1>(p->bits);
  } else {
#if defined(__AVX512F__)
    if constexpr (__is_same(S, F16) && N == 16)
      return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#endif
#if defined(__F16C__)
    if constexpr (__is_same(S, F16) && N == 8)
      return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    if constexpr (__is_same(S, F16) && N == 4)
      return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX512F__)
    if constexpr (N == 16)
      return widen16<S, 16>(bits_as<Vec<uint32_t, 16>>(
          _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
#endif
#if defined(__AVX2__)
    if constexpr (N == 8)
      return widen16<S, 8>(bits_as<Vec<uint32_t, 8>>(
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#endif
#if defined(__SSE4_1__)
    if constexpr (N == 4)
      return widen16<S, 4>(bits_as<Vec<uint32_t, 4>>(
          _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#endif
    Vec<uint16_t, N> half;
    __builtin_memcpy(&half, p, sizeof half);
    return widen16<S, N>(__builtin_convertvector(half, Vec<uint32_t, N>));
  }
}

template <typename S, int N>
inline __attribute__((always_inline)) void store(S* p, Vec<Compute<S>, N> v) {
  if constexpr (sizeof(S) > 2) {
    __builtin_memcpy(p, &v, sizeof v);
  } else if constexpr (N == 1) {
    p->bits = static_cast<uint16_t>(narrow16<S, 1>(v));
  } else {
    const auto half = __builtin_convertvector((narrow16<S, N>(v)), Vec<uint16_t, N>);
    __builtin_memcpy(p, &half, sizeof half);
  }
}

// One item.
template <typename S>
inline __attribute__((always_inline)) Compute<S> item(const S* p) { return load<S, 1>(p); }

}  // namespace gnnlab::GNNLAB_NS
