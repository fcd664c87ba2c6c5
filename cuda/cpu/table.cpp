// The table of kernels of one instruction set. This file and every kernel file are compiled once per
// set with GNNLAB_NS naming it; cpu/library.cpp picks a table at load.
#include "families.h"

#define GNNLAB_TEXT_(x) #x
#define GNNLAB_TEXT(x) GNNLAB_TEXT_(x)

namespace gnnlab::GNNLAB_NS {

const Kernels& table() {
#define GNNLAB_NAME(name) name,
  static constexpr Kernels kTable = {GNNLAB_TEXT(GNNLAB_NS), GNNLAB_KERNELS(GNNLAB_NAME)};
#undef GNNLAB_NAME
  return kTable;
}

}  // namespace gnnlab::GNNLAB_NS
