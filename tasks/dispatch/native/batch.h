// A batch of shops, and the loop over its rows that every exported function is made of.
#pragma once

#include "gnnlab.h"
#include "kernels.h"
#include "shop.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define GNNLAB_SHOP_EXPORT extern "C" __attribute__((visibility("default")))

struct gnnlab_shop {
  gnnlab_shop_options options;
  int64_t num_instances, num_rows, row_bytes, most_jobs;
  gnnlab::dispatch::Instance* instances;
  gnnlab_shop_row* rows;
  char* memory;
  int32_t* ids;
  int64_t* times;
};

namespace gnnlab::dispatch {

void write_mask(const Row& r, uint8_t* mask, int64_t width);

// Calls visit(row, i) for the i-th of the rows; a visit that returns a sentence fails the call.
template <typename Visit>
int each_row(const gnnlab_shop* shop, const int64_t* rows, int64_t count, int threads, const Visit& visit) {
  if (!shop || count < 0 || (!rows && count > shop->num_rows))
    return fail(GNNLAB_BAD_ARGUMENT, "the job shop was given more rows than it has");
  for (int64_t i = 0; rows && i < count; ++i)
    if (rows[i] < 0 || rows[i] >= shop->num_rows)
      return fail(GNNLAB_BAD_INDEX, "row %lld is not in 0..%lld", static_cast<long long>(rows[i]),
                  static_cast<long long>(shop->num_rows - 1));
  const char* why = nullptr;
  int64_t where = -1;
  [[maybe_unused]] const int team = threads > 1 && count > 1 && may_use_threads() ? threads : 1;
#pragma omp parallel for schedule(dynamic, 8) num_threads(team) if (team > 1)
  for (int64_t i = 0; i < count; ++i) {
    Row r = row_of(shop, rows ? rows[i] : i);
    if (const char* bad = visit(r, i)) {
#pragma omp critical(gnnlab_shop_failure)
      if (where < 0 || i < where) {
        where = i;
        why = bad;
      }
    }
  }
  if (where < 0) return GNNLAB_OK;
  return fail(GNNLAB_BAD_ARGUMENT, "episode %lld: %s", static_cast<long long>(where), why);
}

}  // namespace gnnlab::dispatch
