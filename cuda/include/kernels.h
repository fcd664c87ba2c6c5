// The table of kernels: one per instruction set, filled by cpu/table.cpp, read by cpu/library.cpp.
// A new operator adds one line to gnnlab.h, one name to the list below and one kernel file.
#pragma once

#include <cstdint>

#include "gnnlab.h"

// Every kernel `name` has the signature of the C function gnnlab_name.
#define GNNLAB_KERNELS(use) \
  use(check_index)          \
  use(check_indptr)         \
  use(plan_build)           \
  use(gather)               \
  use(scatter)              \
  use(reduce)               \
  use(reduce_multi)         \
  use(reduce_arg_backward)  \
  use(spmm_backward)        \
  use(sddmm)                \
  use(softmax)              \
  use(softmax_backward)     \
  use(gat)                  \
  use(gatv2)                \
  use(attention)            \
  use(gat_backward)         \
  use(gatv2_backward)       \
  use(attention_backward)   \
  use(relu_sum)             \
  use(relu_sum_backward)    \
  use(gated_sum)            \
  use(gated_sum_backward)   \
  use(sample_count)         \
  use(sample_draw)          \
  use(sample_number)        \
  use(partition)            \
  use(radius)               \
  use(found_write)          \
  use(knn)

namespace gnnlab {

// Records the sentence for gnnlab_last_error() and returns `status`. Defined in cpu/library.cpp,
// outside the instruction-set namespaces.
int fail(int status, const char* format, ...) __attribute__((format(printf, 2, 3)));

// False in a child of fork() whose parent may have used threads: OpenMP would wait for ever there.
bool may_use_threads();

inline constexpr int64_t kSerialWork = 32768;  // below this many multiply-adds one thread is faster

struct Kernels {
  const char* isa;
#define GNNLAB_ENTRY(name) decltype(::gnnlab_##name)* name;
  GNNLAB_KERNELS(GNNLAB_ENTRY)
#undef GNNLAB_ENTRY
};

}  // namespace gnnlab
