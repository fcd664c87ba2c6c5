// Backward of max and min.
#include "families.h"
#include "parallel.h"

namespace gnnlab::GNNLAB_NS {

int reduce_arg_backward(const gnnlab_rows*, const void*, const void*, const void*, int64_t, int64_t,
                        int64_t, const void*, int64_t, int64_t, int, void*, void*, int) {
  return fail(GNNLAB_INTERNAL, "this gradient is not there yet");
}

}  // namespace gnnlab::GNNLAB_NS
