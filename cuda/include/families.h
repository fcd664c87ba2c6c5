// What each kernel file of one instruction set defines; cpu/table.cpp puts them in the table.
#pragma once

#include "kernels.h"

namespace gnnlab::GNNLAB_NS {

int check_index(const void* index, int bytes, int64_t count, int64_t bound, int* sorted);
int plan_build(const PlanArgs& a);
int spmm(const SpmmArgs& a);
int segment(const SegmentArgs& a);
int scatter(const ScatterArgs& a);
int gather(const GatherArgs& a);

}  // namespace gnnlab::GNNLAB_NS
