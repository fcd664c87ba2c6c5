// What the forward and the backward kernels of fused attention share: the shares of lanes, operands
// of the two ends of an edge, and scores.
//
//   -DDTYPE=f32|f64|bf16|f16   type of items
//   -DI=i32|i64                type of col and perm
//   -DKIND=0|1|2               gat, gatv2, attention (gnnlab.h has the equations)
//   -DHEADS, -DWIDTH           heads, and items of a head
//   -DVEC                      items read at a time, a divisor of WIDTH
//
// A warp is divided into edges x heads x parts: kLanes parts share the items of a head, kHeads heads
// of the same edge lie side by side (more heads: blocks of their own, gl_block_y), and lanes that
// are left over take further edges. A head wider than 32 * VEC gives a lane several chunks.
#pragma once

#include "gl.cuh"

typedef DTYPE T;
typedef gl_sum_type<T>::type A;

enum Kind { kGat, kGatv2, kDotProduct };

GL_FN constexpr i32 power_of_two(i32 n) {
  i32 power = 1;
  while (power < n) power *= 2;
  return power;
}
GL_FN constexpr i32 smaller(i32 x, i32 y) { return x < y ? x : y; }

constexpr i32 kThreads = 128;
constexpr i32 kWarps = kThreads / 32;
constexpr i64 kLong = 1024;  // edges; longer rows are shared by the warps of a block
constexpr i32 kLanes = smaller(32, power_of_two(WIDTH / VEC));
constexpr i32 kChunks = (WIDTH / VEC + kLanes - 1) / kLanes;
constexpr i32 kHeads = smaller(32 / kLanes, power_of_two(HEADS));
constexpr i32 kEdges = 32 / (kLanes * kHeads);

struct AttentionArgs {
  const i64* indptr;
  const I* col;
  const I* perm;
  i64 rows;
  const T* query;  // of destinations: a_dst, x_dst or q
  const T* key;    // of sources: a_src, x_src or k
  const T* value;  // of sources: x, x_src or v
  const T* att;    // gatv2 alone
  const T* edge;   // edge or bias, or null
  A* largest;      // written by the forward pass, read by the backward pass
  A* total;
  f64 factor;      // negative slope of LeakyReLU, or the scale of dot products
  i64 threshold;   // Philox words below drop an edge; 0: no dropout
  f64 kept;        // factor of edges that are not dropped
  u64 seed;
  T* out;          // forward: result; backward: the same, read
  const T* grad;   // backward from here on
  A* dots;         // (destinations, heads): <grad, out>
  T* grad_query;
  T* grad_key;
  T* grad_value;
  T* grad_edge;
  A* att_parts;    // (blocks, heads, width): what each block adds to the gradient of att
};

// A lane's share of the items of one head.
struct Part {
  A item[kChunks][VEC];
};

#define GL_EACH_ITEM                          \
  GL_UNROLL for (i32 c = 0; c < kChunks; c++) \
    GL_UNROLL for (i32 n = 0; n < VEC; n++)

// What this lane does in its warp.
struct Lane {
  i32 part, head, edge;
  bool live;  // whether there is such a head

  GL_METHOD bool writes_scalar() const { return live && part == 0; }
};

GL_FN Lane this_lane() {
  const i32 lane = gl_lane();
  const i32 head = (i32)gl_block_y() * kHeads + lane / kLanes % kHeads;
  return Lane{lane % kLanes, head, lane / (kLanes * kHeads), head < HEADS};
}

GL_FN bool has_column(const Lane& lane, i32 chunk) {
  return WIDTH % (kLanes * VEC) == 0 || (chunk * kLanes + lane.part) * VEC < WIDTH;
}
GL_FN i64 offset(const Lane& lane, i64 row, i32 chunk) {
  return (row * HEADS + lane.head) * WIDTH + (chunk * kLanes + lane.part) * VEC;
}

GL_FN Part zeros() {
  Part part;
  GL_EACH_ITEM part.item[c][n] = 0;
  return part;
}

GL_FN Part load(const T* x, const Lane& lane, i64 row, bool wanted = true) {
  Part part = zeros();
  if (!wanted || !lane.live) return part;
  GL_UNROLL
  for (i32 c = 0; c < kChunks; c++) {
    if (!has_column(lane, c)) continue;
    const auto items = gl_load<VEC>(x + offset(lane, row, c));
    GL_UNROLL for (i32 n = 0; n < VEC; n++) part.item[c][n] = gl_up(items.item[n]);
  }
  return part;
}

GL_FN A load_scalar(const T* x, const Lane& lane, i64 row, bool wanted = true) {
  return wanted && lane.live ? gl_up(x[row * HEADS + lane.head]) : (A)0;
}

template <typename To>
GL_FN void store(To* x, const Lane& lane, i64 row, const Part& part) {
  if (!lane.live) return;
  GL_UNROLL
  for (i32 c = 0; c < kChunks; c++) {
    if (!has_column(lane, c)) continue;
    To* const at = x + offset(lane, row, c);
    if (sizeof(To) * VEC <= 16) {
      gl_vec<To, VEC> items;
      GL_UNROLL for (i32 n = 0; n < VEC; n++) items.item[n] = gl_down<To>(part.item[c][n]);
      gl_store(at, items);
    } else {
      GL_UNROLL for (i32 n = 0; n < VEC; n++) at[n] = gl_down<To>(part.item[c][n]);
    }
  }
}

// Sum over the parts of a head; all of them get it.
GL_FN A head_sum(A x) {
  GL_UNROLL for (i32 d = kLanes / 2; d > 0; d /= 2) x += gl_shfl_xor(GL_ALL, x, d);
  return x;
}

GL_FN A dot(const Part& x, const Part& y) {
  A sum = 0;
  GL_EACH_ITEM sum += x.item[c][n] * y.item[c][n];
  return head_sum(sum);
}

// Sum over the warps of a block, in their order; every warp gets it. shared: kThreads items.
GL_FN A block_sum(A x, A* shared) {
  gl_syncthreads();  // those who read before are done
  shared[gl_thread()] = x;
  gl_syncthreads();
  A sum = shared[gl_lane()];
  GL_UNROLL for (i32 warp = 1; warp < kWarps; warp++) sum += shared[warp * 32 + gl_lane()];
  return sum;
}
GL_FN void block_sum(Part& part, A* shared) {
  GL_EACH_ITEM part.item[c][n] = block_sum(part.item[c][n], shared);
}

// An end's share of what an edge needs. Each kind fills some of it; the rest costs nothing.
struct Target {
  Part query, grad;
  A logit, largest, inverse, dot;
};
struct Source {
  Part key, value;
  A logit;
};

GL_FN void load_source(const AttentionArgs& a, const Lane& lane, i64 row, bool wanted, Source& s) {
  if (KIND == kGat) s.logit = load_scalar(a.key, lane, row, wanted);
  if (KIND == kDotProduct) s.key = load(a.key, lane, row, wanted);
  s.value = load(a.value, lane, row, wanted);
}

GL_FN void load_query(const AttentionArgs& a, const Lane& lane, i64 row, bool wanted, Target& t) {
  if (KIND == kGat)
    t.logit = load_scalar(a.query, lane, row, wanted);
  else
    t.query = load(a.query, lane, row, wanted);
}

// A score, and what its gradient needs: gat `raw` before LeakyReLU, gatv2 the same for each item.
struct Score {
  A value, raw;
  Part mixed;
};

GL_FN A leaky(A x, A slope) { return x > 0 ? x : x * slope; }

GL_FN void score(const AttentionArgs& a, const Lane& lane, const Target& target,
                 const Source& source, const Part& att, i64 edge, bool wanted, Score& s) {
  const A factor = (A)a.factor;
  if (KIND == kGatv2) {
    s.mixed = a.edge ? load(a.edge, lane, edge, wanted) : zeros();
    GL_EACH_ITEM s.mixed.item[c][n] += source.value.item[c][n] + target.query.item[c][n];
    A sum = 0;
    GL_EACH_ITEM sum += att.item[c][n] * leaky(s.mixed.item[c][n], factor);
    s.value = head_sum(sum);
    return;
  }
  const A extra = a.edge ? load_scalar(a.edge, lane, edge, wanted) : (A)0;
  if (KIND == kGat) {
    s.raw = source.logit + target.logit + extra;
    s.value = leaky(s.raw, factor);
  } else {
    s.value = dot(target.query, source.key) * factor + extra;
  }
}

// First word of Philox4x32-10 (Salmon et al., SC 2011).
GL_FN u32 philox(u64 seed, i64 edge, u32 head) {
  u32 c0 = (u32)edge, c1 = (u32)((u64)edge >> 32), c2 = head, c3 = 0;
  u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
  for (i32 round = 0; round < 10; round++) {
    const u32 high0 = gl_mul_high(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const u32 high1 = gl_mul_high(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

// What dropout multiplies the weight of an edge by.
GL_FN A dropout(const AttentionArgs& a, i64 edge, i32 head) {
  if (KIND != kGat || a.threshold == 0) return 1;
  return (i64)philox(a.seed, edge, (u32)head) < a.threshold ? (A)0 : (A)a.kept;
}
