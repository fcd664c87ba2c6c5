// Shapes: how a feature row of H heads x D items lies in Lanes, for products and sums per head.
//
// Fixed<C, H, D> keeps rows and sums in registers, its loops unrolled; Loose takes any H and D and
// keeps sums in the first cache, each head in Lanes of its own, the last of them partly filled.
// Both add in the same order, so they give the same bits: a sum over edges takes one edge after the
// other; a product adds up lane by lane over the head, then across lanes (lanes.h).
#pragma once

#include "lanes.h"
#include "parallel.h"

namespace gnnlab::GNNLAB_NS {

struct Dims {
  int64_t heads, width;
  int64_t padded;  // heads per place in a buffer of scores
  int64_t packs;   // Lanes in a row of sums: a whole number per head, or several heads in each
};

template <typename C>
inline Dims dims_of(int64_t heads, int64_t width) {
  constexpr int64_t L = Lanes<C>::kCount;
  return {heads, width, padded_heads<C>(heads), heads * ((width + L - 1) / L)};
}

template <typename CT, int H, int D>
struct Fixed {
  using C = CT;
  static constexpr int L = Lanes<C>::kCount, P = H * D / L, kItems = H * D;
  static_assert(H * D % L == 0 && (D % L == 0 || L % D == 0), "whole Lanes");
  explicit Fixed(const Dims&) {}
  int64_t packs() const { return P; }

  // use(pack, offset, count of items, first head of the pack)
  template <class Use>
  GNNLAB_ALWAYS void each(const Use& use) const {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) use(p, p * L, L, p * L / D);
  }
  // out[h] = sum over head h of term(pack, offset, count)
  template <class Term>
  GNNLAB_ALWAYS void dots(const Term& term, C* out) const {
    if constexpr (D >= L) {
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h) {
        constexpr int Q = D / L;
        Lanes<C> sum = term(h * Q, h * D, L);
#pragma GCC unroll 16
        for (int q = 1; q < Q; ++q) sum = sum + term(h * Q + q, h * D + q * L, L);
        out[h] = sum_lanes(sum);
      }
    } else {
      constexpr int N = Lanes<C>::kNative;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        Lanes<C> sum = term(p, p * L, L);
        if constexpr (D > 4) sum = sum + swap_lanes<4>(sum);
        if constexpr (D > 2) sum = sum + swap_lanes<2>(sum);
        if constexpr (D > 1) sum = sum + swap_lanes<1>(sum);
#pragma GCC unroll 16
        for (int h = 0; h < L / D; ++h) out[p * (L / D) + h] = sum.v[h * D / N][h * D % N];
      }
    }
  }
  // p[head] for each item of a pack
  GNNLAB_ALWAYS Lanes<C> weight(const C* p, int pack, int64_t) const {
    if constexpr (D >= L) {
      return same(p[pack * L / D]);
    } else {
      constexpr int N = Lanes<C>::kNative;
      return each_vector<C>([&](int q) {
        typename Lanes<C>::Vector v;
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) v[i] = p[(pack * L + q * N + i) / D];
        return v;
      });
    }
  }
  struct Sums {
    Lanes<C> v[P];
    explicit Sums(C*) {}
    GNNLAB_ALWAYS void clear(const Fixed&) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) v[p] = same(C{0});
    }
    GNNLAB_ALWAYS void add(int p, const Lanes<C>& x) { v[p] = v[p] + x; }
    GNNLAB_ALWAYS Lanes<C> get(int p) const { return v[p]; }
  };
  template <typename S>
  struct Held {
    Lanes<C> v[P];
    GNNLAB_ALWAYS explicit Held(const S* row) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) v[p] = load_lanes(row + p * L);
    }
    GNNLAB_ALWAYS Lanes<C> get(int pack, int64_t, int) const { return v[pack]; }
  };
};

template <typename CT>
struct Loose {
  using C = CT;
  static constexpr int L = Lanes<C>::kCount, kItems = 0;  // unknown
  Dims dims;
  explicit Loose(const Dims& d) : dims(d) {}
  int64_t packs() const { return dims.packs; }

  template <class Use>
  GNNLAB_ALWAYS void each(const Use& use) const {
    int pack = 0;
    for (int64_t h = 0; h < dims.heads; ++h) {
      int64_t d = 0;
      for (; d + L <= dims.width; d += L) use(pack++, h * dims.width + d, L, h);
      if (d < dims.width) use(pack++, h * dims.width + d, static_cast<int>(dims.width - d), h);
    }
  }
  template <class Term>
  GNNLAB_ALWAYS void dots(const Term& term, C* out) const {
    int pack = 0;
    for (int64_t h = 0; h < dims.heads; ++h) {
      Lanes<C> sum = same(C{0});
      int64_t d = 0;
      for (; d + L <= dims.width; d += L) sum = sum + term(pack++, h * dims.width + d, L);
      if (d < dims.width)
        sum = sum + term(pack++, h * dims.width + d, static_cast<int>(dims.width - d));
      out[h] = sum_lanes(sum);
    }
    for (int64_t h = dims.heads; h < dims.padded; ++h) out[h] = 0;
  }
  GNNLAB_ALWAYS Lanes<C> weight(const C* p, int, int64_t head) const { return same(p[head]); }

  struct Sums {
    C* data;
    explicit Sums(C* scratch) : data(scratch) {}
    GNNLAB_ALWAYS void clear(const Loose& shape) {
      for (int64_t p = 0; p < shape.dims.packs; ++p) store_lanes(data + p * L, same(C{0}));
    }
    GNNLAB_ALWAYS void add(int p, const Lanes<C>& x) {
      store_lanes(data + p * L, load_lanes(data + p * L) + x);
    }
    GNNLAB_ALWAYS Lanes<C> get(int p) const { return load_lanes(data + p * L); }
  };
  template <typename S>
  struct Held {
    const S* row;
    GNNLAB_ALWAYS explicit Held(const S* r) : row(r) {}
    GNNLAB_ALWAYS Lanes<C> get(int, int64_t offset, int count) const {
      return load_some(row + offset, count);
    }
  };
};

// Calls use(Shape tag) with the unrolled shape of heads x width where there is one.
template <typename T>
struct Tag { using type = T; };
template <typename S, typename I, class Use>
auto with_shape([[maybe_unused]] int64_t heads, [[maybe_unused]] int64_t width, const Use& use) {
  if constexpr (__is_same(S, float) && __is_same(I, int32_t)) {
    const int64_t key = heads * 1000 + width;
    if (width < 1000) switch (key) {
        case 1016: return use(Tag<Fixed<float, 1, 16>>{});
        case 1032: return use(Tag<Fixed<float, 1, 32>>{});
        case 1064: return use(Tag<Fixed<float, 1, 64>>{});
        case 4016: return use(Tag<Fixed<float, 4, 16>>{});
        case 8008: return use(Tag<Fixed<float, 8, 8>>{});
#if defined(__AVX512F__)  // elsewhere 16 Lanes do not fit into the registers
        case 1128: return use(Tag<Fixed<float, 1, 128>>{});
        case 8032: return use(Tag<Fixed<float, 8, 32>>{});
        case 4064: return use(Tag<Fixed<float, 4, 64>>{});
#endif
      }
  }
  return use(Tag<Loose<Compute<S>>>{});
}

}  // namespace gnnlab::GNNLAB_NS
