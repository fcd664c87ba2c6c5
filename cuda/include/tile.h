// A tile: the part of a feature row that is kept in registers while a row of edges is summed.
//
// Written with the compiler's vector extension, one vector as wide as the instruction set has. Each
// feature has its own lane, so the width of vectors never changes the order of additions.
#pragma once

#include <cstdint>

namespace gnnlab::GNNLAB_NS {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <typename T, int LANES>
struct VectorOf {
  typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};
template <typename T>
struct VectorOf<T, 1> {
  typedef T type;
};

constexpr int lanes_for(int bytes, int item) {
  return bytes < 16 ? 1 : (bytes < kVectorBytes ? bytes : kVectorBytes) / item;
}

template <typename T, int W>
struct Tile {
  static constexpr int kLanes = lanes_for(W * static_cast<int>(sizeof(T)), sizeof(T));
  static constexpr int kVectors = W / kLanes;
  using Vector = typename VectorOf<T, kLanes>::type;
  Vector v[kVectors];

  inline __attribute__((always_inline)) void clear() {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) v[k] = Vector{};
  }
  inline __attribute__((always_inline)) void add(const Tile& other) {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) v[k] += other.v[k];
  }
  inline __attribute__((always_inline)) void add(const T* p) {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) {
      Vector a;
      __builtin_memcpy(&a, p + k * kLanes, sizeof a);
      v[k] += a;
    }
  }
  inline __attribute__((always_inline)) void add_scaled(const T* p, T scale) {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) {
      Vector a;
      __builtin_memcpy(&a, p + k * kLanes, sizeof a);
      v[k] += a * scale;
    }
  }
  inline __attribute__((always_inline)) void divide(T by) {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) v[k] /= by;
  }
  inline __attribute__((always_inline)) void store(T* p) const {
#pragma GCC unroll 64
    for (int k = 0; k < kVectors; ++k) __builtin_memcpy(p + k * kLanes, &v[k], sizeof(Vector));
  }
};

}  // namespace gnnlab::GNNLAB_NS
