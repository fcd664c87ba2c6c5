// How lanes share the edges and columns of rows; for rows.cu, multi.cu and arg.cu.
//
// A group of lanes (4 to 32, a power of 2) works on one row, or on one chunk of a long row, and on
// one tile of its columns. Its first `lanes` lanes hold VEC columns each; if the group has more lanes
// than that, the edges are dealt out among group / lanes equal parts, whose results are joined by
// `join_parts`. The order of all operations depends on the row's number of edges alone.
#pragma once
#include "gl.cuh"

#define CHUNK 1024  // edges; longer rows are cut into chunks of this many
#define IN_FLIGHT 4  // rows of x under way per lane

struct Columns {
  i32 group, lanes;
  u32 mask;
  i32 lane;    // in the group
  i32 part;    // which of the group's equal parts
  i64 first;   // column of this lane
  bool inside;
};

GL_FN Columns columns_of(i64 group, i64 lanes, i64 columns, i32 vec) {
  Columns c;
  c.group = (i32)group;
  c.lanes = (i32)lanes;
  c.mask = gl_group_mask(c.group);
  c.lane = gl_lane() & (c.group - 1);
  c.part = c.lane / c.lanes;
  c.first = (gl_block_y() * c.lanes + (c.lane & (c.lanes - 1))) * vec;
  c.inside = c.first < columns;
  return c;
}

// Which row or chunk this thread's group works on.
GL_FN i64 group_number(const Columns& c) {
  return gl_block() * (gl_threads() / c.group) + gl_thread() / c.group;
}

// The row of a chunk: offsets[row] <= chunk < offsets[row + 1]. -1 if there is no such chunk.
GL_FN i64 row_of_chunk(const i64* offsets, i64 num_rows, i64 chunk) {
  if (chunk >= offsets[num_rows]) return -1;
  i64 low = 0, high = num_rows;
  while (high - low > 1) {
    const i64 middle = (low + high) / 2;
    if (offsets[middle] <= chunk) low = middle;
    else high = middle;
  }
  return low;
}

// Writes N items in pieces of at most 16 bytes.
template <i32 N, typename S>
GL_FN void store_items(S* at, const S* items) {
  constexpr i32 kMost = 16 / (i32)sizeof(S);
  constexpr i32 kPiece = N < kMost ? N : kMost;
  GL_UNROLL for (i32 i = 0; i < N; i += kPiece) {
    gl_vec<S, kPiece> piece;
    GL_UNROLL for (i32 j = 0; j < kPiece; j++) piece.item[j] = items[i + j];
    gl_store(at + i, piece);
  }
}
template <i32 N, typename S>
GL_FN void load_items(const S* at, S* items) {
  constexpr i32 kMost = 16 / (i32)sizeof(S);
  constexpr i32 kPiece = N < kMost ? N : kMost;
  GL_UNROLL for (i32 i = 0; i < N; i += kPiece) {
    const gl_vec<S, kPiece> piece = gl_load<kPiece>(at + i);
    GL_UNROLL for (i32 j = 0; j < kPiece; j++) items[i + j] = piece.item[j];
  }
}

template <typename T>
GL_FN bool is_nan(T x) {
  return x != x;
}
