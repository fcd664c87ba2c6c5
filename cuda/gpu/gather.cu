// out[e] = x[index[e]]: rows copied as words of W, whatever they hold.
//
//   -DW=u8|u16|u32|u64|w16   the widest word that rows, strides and addresses are a multiple of
//   -DI=i32|i64              type of index
//
// x may be host memory that the GPU sees (zero copy): a warp then asks for addresses side by side,
// shifted so that its requests begin at multiples of 128 bytes (PyTorch-Direct, arXiv 2101.07956).
// With `slots`, row r comes from cache[slots[r]] where slots[r] >= 0, from x otherwise.
// A row outside [0, num_src) is not read: all bits of its output are set (NaN, or -1).
#include "gl.cuh"

typedef gl_vec<u64, 2> w16;

struct GatherArgs {
  const char* x;
  i64 stride;  // bytes between rows of x
  const I* index;
  i64 count;
  i64 num_src;
  i64 words;  // of a row
  W* out;
  const i32* slots;
  const char* cache;
  i64 cache_stride;
};

GL_FN const char* row_address(const GatherArgs& a, i64 row) {
  if (row < 0 || row >= a.num_src) return 0;
  if (a.slots) {
    const i64 slot = a.slots[row];
    if (slot >= 0) return a.cache + slot * a.cache_stride;
  }
  return a.x + row * a.stride;
}

GL_FN W all_bits() {
  W word;
  u8* bytes = (u8*)&word;
  GL_UNROLL for (i32 i = 0; i < (i32)sizeof(W); i++) bytes[i] = 0xff;
  return word;
}

// A warp for each row of more than 32 words.
GL_KERNEL(gather_wide, GatherArgs, 256) {
  const i64 warps = gl_blocks() * (gl_threads() >> 5);
  for (i64 e = gl_block() * (gl_threads() >> 5) + gl_warp(); e < a.count; e += warps) {
    const char* row = row_address(a, (i64)a.index[e]);
    W* out = a.out + e * a.words;
    const W* words = (const W*)row;
    const i64 shift = (i64)((u64)row % 128 / sizeof(W));
    for (i64 w = gl_lane() - shift; w < a.words; w += 128) {
      W held[4];  // four requests under way at a time
      GL_UNROLL for (i32 u = 0; u < 4; u++) {
        const i64 at = w + 32 * u;
        if (at >= 0 && at < a.words) held[u] = row ? words[at] : all_bits();
      }
      GL_UNROLL for (i32 u = 0; u < 4; u++) {
        const i64 at = w + 32 * u;
        if (at >= 0 && at < a.words) out[at] = held[u];
      }
    }
  }
}

// LANES lanes for each row of at most LANES words (the smallest power of 2), four rows at a time.
template <i32 LANES>
GL_FN void gather_few(const GatherArgs& a) {
  const i64 groups = gl_blocks() * (gl_threads() / LANES);
  const i32 word = gl_thread() & (LANES - 1);
  const bool inside = word < a.words;
  for (i64 e = gl_block() * (gl_threads() / LANES) + gl_thread() / LANES; e < a.count;
       e += 4 * groups) {
    const char* row[4];
    W held[4];
    GL_UNROLL for (i32 u = 0; u < 4; u++) {
      const i64 at = e + u * groups;
      row[u] = at < a.count ? row_address(a, (i64)a.index[at]) : 0;
    }
    GL_UNROLL for (i32 u = 0; u < 4; u++)
      if (row[u] && inside) held[u] = ((const W*)row[u])[word];
      else held[u] = all_bits();
    GL_UNROLL for (i32 u = 0; u < 4; u++) {
      const i64 at = e + u * groups;
      if (at < a.count && inside) a.out[at * a.words + word] = held[u];
    }
  }
}

GL_KERNEL(gather_few_1, GatherArgs, 256) { gather_few<1>(a); }
GL_KERNEL(gather_few_2, GatherArgs, 256) { gather_few<2>(a); }
GL_KERNEL(gather_few_4, GatherArgs, 256) { gather_few<4>(a); }
GL_KERNEL(gather_few_8, GatherArgs, 256) { gather_few<8>(a); }
GL_KERNEL(gather_few_16, GatherArgs, 256) { gather_few<16>(a); }
GL_KERNEL(gather_few_32, GatherArgs, 256) { gather_few<32>(a); }
