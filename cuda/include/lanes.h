// Lanes: 64 bytes of numbers, always 16 floats or 8 doubles, in as many vectors as the processor needs.
//
// Everything that sums across lanes is written on these, so that the tree of additions is the same
// on every instruction set: lane l first meets lane l + 8, then l + 4, l + 2, l + 1.
// Loads widen float16 and bfloat16, stores round them (items.h). exp is our own: no branch, at most
// 2 units in the last place, exp(-inf) = 0, NaN stays NaN, subnormal results included.
#pragma once

#include <utility>

#include "items.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define GNNLAB_ALWAYS inline __attribute__((always_inline))
#define GNNLAB_LAMBDA __attribute__((always_inline))  // after the parameters of a lambda

namespace gnnlab::GNNLAB_NS {

#if defined(__AVX512F__)
inline constexpr int kLaneBytes = 64;
#elif defined(__AVX__)
inline constexpr int kLaneBytes = 32;
#else
inline constexpr int kLaneBytes = 16;
#endif

template <typename C, int B = 64>
struct Lanes {
  static constexpr int kCount = B / static_cast<int>(sizeof(C));
  static constexpr int kNative = (B < kLaneBytes ? B : kLaneBytes) / static_cast<int>(sizeof(C));
  static constexpr int kVectors = kCount / kNative;
  using Vector = Vec<C, kNative>;
  Vector v[kVectors];
};

template <typename C, int B = 64, class F>
GNNLAB_ALWAYS Lanes<C, B> each_vector(const F& f) {
  Lanes<C, B> r;
#pragma GCC unroll 4
  for (int q = 0; q < Lanes<C, B>::kVectors; ++q) r.v[q] = f(q);
  return r;
}

template <typename C, int B = 64>
GNNLAB_ALWAYS Lanes<C, B> same(C value) {
  return each_vector<C, B>([&](int) GNNLAB_LAMBDA { return typename Lanes<C, B>::Vector{} + value; });
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> operator+(const Lanes<C, B>& a, const Lanes<C, B>& b) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q] + b.v[q]; });
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> operator-(const Lanes<C, B>& a, const Lanes<C, B>& b) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q] - b.v[q]; });
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> operator*(const Lanes<C, B>& a, const Lanes<C, B>& b) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q] * b.v[q]; });
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> operator/(const Lanes<C, B>& a, const Lanes<C, B>& b) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q] / b.v[q]; });
}
// a where it is larger; b where a is NaN.
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> larger(const Lanes<C, B>& a, const Lanes<C, B>& b) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q] > b.v[q] ? a.v[q] : b.v[q]; });
}
// x above 0, else slope * x.
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> leaky(const Lanes<C, B>& x, C slope) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return x.v[q] > 0 ? x.v[q] : x.v[q] * slope; });
}
// Its derivative times g.
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> leaky_slope(const Lanes<C, B>& x, const Lanes<C, B>& g, C slope) {
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return x.v[q] > 0 ? g.v[q] : g.v[q] * slope; });
}
// 0 instead of -inf: what to subtract from the scores of a row that holds nothing else.
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> shift_of(const Lanes<C, B>& largest) {
  using V = typename Lanes<C, B>::Vector;
  return each_vector<C, B>(
      [&](int q) GNNLAB_LAMBDA { return largest.v[q] == V{} - static_cast<C>(__builtin_inf()) ? V{} : largest.v[q]; });
}

template <typename S, int B = 64, typename C = Compute<S>>
GNNLAB_ALWAYS Lanes<C, B> load_lanes(const S* p) {
  constexpr int N = Lanes<C, B>::kNative;
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return load<S, N>(p + q * N); });
}
template <typename S, int B, typename C = Compute<S>>
GNNLAB_ALWAYS void store_lanes(S* p, const Lanes<C, B>& a) {
  constexpr int N = Lanes<C, B>::kNative;
#pragma GCC unroll 4
  for (int q = 0; q < Lanes<C, B>::kVectors; ++q) store<S, N>(p + q * N, a.v[q]);
}
// The first n items; the other lanes are 0. Reads nothing past them.
template <typename S, typename C = Compute<S>>
GNNLAB_ALWAYS Lanes<C> load_some(const S* p, int n) {
  if (n == Lanes<C>::kCount) return load_lanes(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return {{_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)}};
  if constexpr (sizeof(S) == 8)
    return {{_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p)}};
#endif
  S part[Lanes<C>::kCount] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load_lanes(part);
}
template <typename S, typename C = Compute<S>>
GNNLAB_ALWAYS void store_some(S* p, const Lanes<C>& a, int n) {
  if (n == Lanes<C>::kCount) return store_lanes(p, a);
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.v[0]);
  if constexpr (sizeof(S) == 8)
    return _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), a.v[0]);
#endif
  S part[Lanes<C>::kCount];
  store_lanes(part, a);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}

// a in the first n lanes, `rest` in the others.
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> first_lanes(const Lanes<C, B>& a, C rest, int64_t n) {
  using I = Vec<Int<C>, Lanes<C, B>::kNative>;
  I place;
  for (int i = 0; i < Lanes<C, B>::kNative; ++i) place[i] = i;
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA {
    const I left = I{} + static_cast<Int<C>>(n - q * Lanes<C, B>::kNative);
    return place < left ? a.v[q] : typename Lanes<C, B>::Vector{} + rest;
  });
}

template <int STEP, typename C, int N, int... I>
GNNLAB_ALWAYS Vec<C, N> swapped(const Vec<C, N>& v, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (I ^ STEP)...);
#else
  return __builtin_shuffle(v, Vec<Int<C>, N>{(I ^ STEP)...});
#endif
}
// Lane l of the result is lane l ^ STEP of a.
template <int STEP, typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> swap_lanes(const Lanes<C, B>& a) {
  constexpr int N = Lanes<C, B>::kNative;
  if constexpr (STEP >= N) return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return a.v[q ^ (STEP / N)]; });
  else
    return each_vector<C, B>([&](int q) GNNLAB_LAMBDA {
      return swapped<STEP, C, N>(a.v[q], std::make_integer_sequence<int, N>{});
    });
}

// Combines lanes that are equal modulo `period` (a power of two): every lane gets the result.
template <typename C, int B, class F>
GNNLAB_ALWAYS Lanes<C, B> fold(Lanes<C, B> a, int64_t period, const F& combine) {
  if constexpr (Lanes<C, B>::kCount > 8)
    if (period <= 8) a = combine(a, swap_lanes<8>(a));
  if constexpr (Lanes<C, B>::kCount > 4)
    if (period <= 4) a = combine(a, swap_lanes<4>(a));
  if (period <= 2) a = combine(a, swap_lanes<2>(a));
  if (period <= 1) a = combine(a, swap_lanes<1>(a));
  return a;
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> fold_sum(const Lanes<C, B>& a, int64_t period) {
  return fold(a, period, [](const Lanes<C, B>& x, const Lanes<C, B>& y) GNNLAB_LAMBDA { return x + y; });
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> fold_max(const Lanes<C, B>& a, int64_t period) {
  return fold(a, period, [](const Lanes<C, B>& x, const Lanes<C, B>& y) GNNLAB_LAMBDA { return larger(x, y); });
}

template <typename C, int N, int... I>
GNNLAB_ALWAYS C sum_halves(const Vec<C, N>& v, std::integer_sequence<int, I...>) {
  if constexpr (N == 2) {
    return v[0] + v[1];
  } else {
    const Vec<C, N / 2> half = __builtin_shufflevector(v, v, I...) +
                               __builtin_shufflevector(v, v, (I + N / 2)...);
    return sum_halves<C, N / 2>(half, std::make_integer_sequence<int, N / 4>{});
  }
}
// Lane 0 of fold_sum(a, 1), in half the work.
template <typename C>
GNNLAB_ALWAYS C sum_lanes(const Lanes<C>& a) {
  constexpr int K = Lanes<C>::kVectors, N = Lanes<C>::kNative;
  typename Lanes<C>::Vector v = a.v[0];
  if constexpr (K == 2) v = v + a.v[1];
  if constexpr (K == 4) v = (v + a.v[2]) + (a.v[1] + a.v[3]);
  return sum_halves<C, N>(v, std::make_integer_sequence<int, N / 2>{});
}

// exp(x) = 2^n exp(r), |r| <= ln 2 / 2; n ln 2 is subtracted in two parts, 2^n multiplied in two.
template <int N>
GNNLAB_ALWAYS Vec<float, N> exp_vector(Vec<float, N> x) {
  using F = Vec<float, N>;
  using I = Vec<int32_t, N>;
  const I none = x < -104.0f;  // an underflow costs a hundred cycles: -inf must not cause one
  x = none ? F{} : x;
  x = x > 89.0f ? F{} + 89.0f : x;
  const F magic = F{} + 12582912.0f;  // 1.5 * 2^23: leaves the nearest integer in the low bits
  const F shifted = x * 1.44269504f + magic;
  const F n = shifted - magic;
  const F r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;  // Cephes' expf
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const I k = bits_as<I>(shifted) - bits_as<int32_t>(12582912.0f), half = k >> 1;
  p = p * bits_as<F>(static_cast<I>((half + 127) << 23)) *
      bits_as<F>(static_cast<I>((k - half + 127) << 23));
  return none ? F{} : p;
}
template <int N>
GNNLAB_ALWAYS Vec<double, N> exp_vector(Vec<double, N> x) {
  using F = Vec<double, N>;
  using I = Vec<int64_t, N>;
  const I none = x < -746.0;
  x = none ? F{} : x;
  x = x > 710.0 ? F{} + 710.0 : x;
  const F magic = F{} + 6755399441055744.0;  // 1.5 * 2^52
  const F shifted = x * 1.4426950408889634 + magic;
  const F n = shifted - magic;
  const F r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  constexpr double kInverse[] = {1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880,
                                 1. / 40320, 1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 0.5};
  F p = F{} + 1. / 6227020800;  // Taylor's series to degree 13
#pragma GCC unroll 16
  for (double c : kInverse) p = p * r + c;
  p = p * (r * r) + r + 1.0;
  const I k = bits_as<I>(shifted) - bits_as<int64_t>(6755399441055744.0), half = k >> 1;
  p = p * bits_as<F>(static_cast<I>((half + 1023) << 52)) *
      bits_as<F>(static_cast<I>((k - half + 1023) << 52));
  return none ? F{} : p;
}
template <typename C, int B>
GNNLAB_ALWAYS Lanes<C, B> exp_lanes(const Lanes<C, B>& a) {
  constexpr int N = Lanes<C, B>::kNative;
  return each_vector<C, B>([&](int q) GNNLAB_LAMBDA { return exp_vector<N>(a.v[q]); });
}

// Heads per row of a score buffer: a power of two below one Lanes, else whole Lanes.
template <typename C>
inline int64_t padded_heads(int64_t heads) {
  constexpr int64_t L = Lanes<C>::kCount;
  if (heads > L) return (heads + L - 1) / L * L;
  int64_t p = 1;
  while (p < heads) p *= 2;
  return p;
}

}  // namespace gnnlab::GNNLAB_NS
