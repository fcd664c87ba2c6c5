// Declares what the kernel files of one instruction set define; cpu/table.cpp puts it in the table.
#pragma once

#include "kernels.h"

namespace gnnlab::GNNLAB_NS {

#define GNNLAB_DECLARE(name) decltype(::gnnlab_##name) name;
GNNLAB_KERNELS(GNNLAB_DECLARE)
#undef GNNLAB_DECLARE

}  // namespace gnnlab::GNNLAB_NS
