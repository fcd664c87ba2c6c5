// A tile: the part of a feature row that is kept in registers while a row of edges is reduced.
//
// Written with the compiler's vector extension, one vector as wide as the instruction set has. Each
// feature has its own lane, so the width of vectors never changes the order of additions.
#pragma once

#include <limits>
#include <type_traits>

#include "items.h"

namespace gnnlab::GNNLAB_NS {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

constexpr int lanes_for(int bytes, int item) {
  return bytes < 16 ? 1 : (bytes < kVectorBytes ? bytes : kVectorBytes) / item;
}

#define GNNLAB_INLINE inline __attribute__((always_inline))

// Keeps the compiler from turning a choice between two numbers into a branch, which maxima of random
// numbers would make the processor guess wrong.
template <typename T>
GNNLAB_INLINE void always_written([[maybe_unused]] T& number) {
#if defined(__SSE2__)
  if constexpr (std::is_floating_point_v<T>) __asm__("" : "+x"(number));
  else __asm__("" : "+r"(number));
#endif
}

// x > value ? x : value in one instruction, which compilers do not always find.
template <typename C, int N>
GNNLAB_INLINE Vec<C, N> larger(Vec<C, N> x, Vec<C, N> value) {
  constexpr bool kF32 = std::is_same_v<C, float>, kF64 = std::is_same_v<C, double>;
  (void)kF32, (void)kF64;
#if defined(__AVX512F__)
  if constexpr (kF32 && N == 16) return _mm512_max_ps(x, value);
  if constexpr (kF64 && N == 8) return _mm512_max_pd(x, value);
#endif
#if defined(__AVX__)
  if constexpr (kF32 && N == 8) return _mm256_max_ps(x, value);
  if constexpr (kF64 && N == 4) return _mm256_max_pd(x, value);
#endif
#if defined(__SSE4_1__)
  if constexpr (kF32 && N == 4) return _mm_max_ps(x, value);
  if constexpr (kF64 && N == 2) return _mm_max_pd(x, value);
#endif
  Vec<C, N> most = x > value ? x : value;
  if constexpr (N == 1) always_written(most);
  return most;
}

// arg becomes position where value < x.
template <typename C, int N>
GNNLAB_INLINE void mark(Vec<Int<C>, N>& arg, Vec<C, N> value, Vec<C, N> x, Vec<Int<C>, N> position) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<C, float> && N == 16) {
    const __mmask16 more = _mm512_cmp_ps_mask(value, x, _CMP_LT_OQ);
    arg = bits_as<Vec<Int<C>, N>>(_mm512_mask_mov_epi32(bits_as<__m512i>(arg), more, bits_as<__m512i>(position)));
    return;
  }
  if constexpr (std::is_same_v<C, double> && N == 8) {
    const __mmask8 more = _mm512_cmp_pd_mask(value, x, _CMP_LT_OQ);
    arg = bits_as<Vec<Int<C>, N>>(_mm512_mask_mov_epi64(bits_as<__m512i>(arg), more, bits_as<__m512i>(position)));
    return;
  }
#endif
  if constexpr (N == 1) {
    Int<C> keep = static_cast<Int<C>>(value < x) - 1;
    always_written(keep);
    arg = (arg & keep) | (position & ~keep);
  } else {
    arg = value < x ? position : arg;
  }
}

// Remembers whether one of the vectors shown to it held a NaN.
template <typename C, int N>
struct NanSeen {
  using V = Vec<C, N>;
#if defined(__AVX512F__)
  static constexpr bool kMask = N > 1;
#else
  static constexpr bool kMask = false;
#endif
  std::conditional_t<kMask, uint16_t, Vec<Int<C>, N>> seen;
  GNNLAB_INLINE void clear() { seen = decltype(seen){}; }
  GNNLAB_INLINE void merge(const NanSeen& other) { seen |= other.seen; }
  GNNLAB_INLINE void show(V a, V b) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<C, float> && N == 16) {
      seen = _kor_mask16(seen, _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q));
    } else if constexpr (std::is_same_v<C, float> && N == 8) {
      seen |= _mm256_cmp_ps_mask(a, b, _CMP_UNORD_Q);
    } else if constexpr (std::is_same_v<C, float> && N == 4) {
      seen |= _mm_cmp_ps_mask(a, b, _CMP_UNORD_Q);
    } else if constexpr (N == 8) {
      seen = _kor_mask8(seen, _mm512_cmp_pd_mask(a, b, _CMP_UNORD_Q));
    } else if constexpr (N == 4) {
      seen |= _mm256_cmp_pd_mask(a, b, _CMP_UNORD_Q);
    } else if constexpr (N == 2) {
      seen |= _mm_cmp_pd_mask(a, b, _CMP_UNORD_Q);
    } else {
      seen |= (a != a) | (b != b);
    }
#else
    seen |= (a != a) | (b != b);
#endif
  }
  GNNLAB_INLINE bool any() const {
    if constexpr (kMask || N == 1) {
      return seen != 0;
    } else {
#if defined(__AVX__)
      if constexpr (sizeof(V) == 32) return !_mm256_testz_si256(bits_as<__m256i>(seen), bits_as<__m256i>(seen));
#endif
#if defined(__SSE4_1__)
      if constexpr (sizeof(V) == 16) return !_mm_testz_si128(bits_as<__m128i>(seen), bits_as<__m128i>(seen));
#endif
      Int<C> all = 0;
      for (int i = 0; i < N; ++i) all |= seen[i];
      return all != 0;
    }
  }
};

enum Mode { kSum, kMul, kMax, kArg };  // kArg: the maximum and where it was

// What W columns of a row of edges have come to. Minima are maxima of flipped numbers: `flip` is all
// zeros for a maximum, the sign bit (floats) or all ones (integers) for a minimum.
// PAIRED (bfloat16 sums): vector 2 q holds the even columns of a run of 2 N, vector 2 q + 1 the odd
// ones, because a word of two bfloat16 is split by a shift and a mask, without moving lanes.
template <typename C, int W, Mode MODE, bool PAIRED = false>
struct Accumulator {
  static constexpr int N = lanes_for(W * static_cast<int>(sizeof(C)), sizeof(C));
  static constexpr int kVectors = W / N;
  static constexpr bool kNan = MODE >= kMax && std::is_floating_point_v<C>;
  using V = Vec<C, N>;
  using X = Vec<Int<C>, N>;
  V value[kVectors];
  X arg[MODE == kArg ? kVectors : 1];
  NanSeen<C, N> nan;

  // `first`: the position in the block of the first edge that will be added.
  GNNLAB_INLINE void clear(Int<C> first) {
    constexpr C kFloor = std::is_floating_point_v<C> ? -std::numeric_limits<C>::infinity()
                                                     : std::numeric_limits<C>::lowest();
    constexpr C kStart = MODE == kSum ? C(0) : MODE == kMul ? C(1) : kFloor;
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) {
      value[v] = V{} + kStart;
      if constexpr (MODE == kArg) arg[v] = X{} + first;
    }
    if constexpr (kNan) nan.clear();
  }

  template <bool WEIGHTED, typename S>
  GNNLAB_INLINE void add(const S* p, C weight, X position, X flip, Int<C> sign) {
    V x[kVectors];
    // A flipped float is the negative one: flipping the weight flips the product.
    if constexpr (WEIGHTED && kNan) weight = bits_as<C>(static_cast<Int<C>>(bits_as<Int<C>>(weight) ^ sign));
    if constexpr (PAIRED) {
#pragma GCC unroll 32
      for (int v = 0; v < kVectors; v += 2) {
        Vec<uint32_t, N> both;
        __builtin_memcpy(&both, p + v * N, sizeof both);
        x[v] = bits_as<V>(static_cast<Vec<uint32_t, N>>(both << 16));
        x[v + 1] = bits_as<V>(static_cast<Vec<uint32_t, N>>(both & 0xffff0000u));
      }
    }
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (!PAIRED) x[v] = load<S, N>(p + v * N);
      if constexpr (WEIGHTED) x[v] = x[v] * weight;
      if constexpr (MODE >= kMax && !(WEIGHTED && kNan)) x[v] = bits_as<V>(static_cast<X>(bits_as<X>(x[v]) ^ flip));
    }
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (MODE == kSum) value[v] += x[v];
      if constexpr (MODE == kMul) value[v] *= x[v];
      if constexpr (MODE == kArg) mark<C, N>(arg[v], value[v], x[v], position);
      if constexpr (MODE >= kMax) value[v] = larger<C, N>(x[v], value[v]);
    }
    if constexpr (kNan) {
#pragma GCC unroll 64
      for (int v = 0; v < kVectors; v += 2) nan.show(x[v], x[v + 1 < kVectors ? v + 1 : v]);
    }
  }

  GNNLAB_INLINE void merge(const Accumulator& other) {
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (MODE == kSum) value[v] += other.value[v];
      if constexpr (MODE == kMul) value[v] *= other.value[v];
      if constexpr (MODE == kArg) {
        const X after = value[v] < other.value[v] ? X{} - 1 : X{};
        const X tie = value[v] == other.value[v] ? X{} - 1 : X{};
        const X sooner = other.arg[v] < arg[v] ? X{} - 1 : X{};
        arg[v] = (after | (tie & sooner)) != 0 ? other.arg[v] : arg[v];
      }
      if constexpr (MODE >= kMax) value[v] = larger<C, N>(other.value[v], value[v]);
    }
    if constexpr (kNan) nan.merge(other.nan);
  }

  GNNLAB_INLINE void divide(C by) {
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) value[v] /= by;
  }

  template <typename S>
  GNNLAB_INLINE void store_value(S* p, X flip) const {
    if constexpr (PAIRED) return store_pairs(p);
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) {
      V out = value[v];
      if constexpr (MODE >= kMax) out = bits_as<V>(static_cast<X>(bits_as<X>(out) ^ flip));
      store<S, N>(p + v * N, out);
    }
  }

  template <typename S>
  GNNLAB_INLINE void store_pairs(S* p) const {
#pragma GCC unroll 32
    for (int v = 0; v < kVectors; v += 2) {
      if constexpr (sizeof(S) == 2) {
        const Vec<uint32_t, N> both = narrow16<S, N>(value[v]) | narrow16<S, N>(value[v + 1]) << 16;
        __builtin_memcpy(p + v * N, &both, sizeof both);
      } else {  // a block's partial sum
        for (int i = 0; i < N; ++i) {
          p[v * N + 2 * i] = value[v][i];
          p[v * N + 2 * i + 1] = value[v + 1][i];
        }
      }
    }
  }

  template <typename I>
  GNNLAB_INLINE void store_arg(I* p, int64_t base) const {
    if constexpr (sizeof(I) == sizeof(C)) {
#pragma GCC unroll 64
      for (int v = 0; v < kVectors; ++v) {
        const X place = arg[v] + static_cast<Int<C>>(base);
        __builtin_memcpy(p + v * N, &place, sizeof place);
      }
    } else {
      Int<C> lanes[W];
      __builtin_memcpy(lanes, arg, sizeof lanes);
      for (int f = 0; f < W; ++f) p[f] = static_cast<I>(lanes[f] + base);
    }
  }
};

}  // namespace gnnlab::GNNLAB_NS
