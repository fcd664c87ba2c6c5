// The exported C functions: check the arguments that would make a kernel go astray, choose the
// instruction set once, keep the last error, and let no exception out.
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define GNNLAB_HAS_FORK
#endif

#include "kernels.h"

#define GNNLAB_API extern "C" __attribute__((visibility("default")))

namespace gnnlab {

#ifdef GNNLAB_HAS_PORTABLE
namespace portable { const Kernels& table(); }
#else
namespace v2 { const Kernels& table(); }
namespace v3 { const Kernels& table(); }
namespace v4 { const Kernels& table(); }
#endif

namespace {

thread_local char last_error[512] = "";
std::atomic<const Kernels*> chosen{nullptr};

// Set in the child of every fork(): the parent's OpenMP threads do not exist there, but OpenMP's
// books say that they do, and the first parallel region would wait for them for ever.
std::atomic<bool> forked{false};
#ifdef GNNLAB_HAS_FORK
const int fork_watch = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
#endif

// The table called `name` if this machine can run it, the best one for "auto", else null.
const Kernels* find_table(const char* name) {
#ifdef GNNLAB_HAS_PORTABLE
  const bool fits = !std::strcmp(name, "auto") || !std::strcmp(name, "portable");
  return fits ? &portable::table() : nullptr;
#else
  __builtin_cpu_init();
  const bool any = !std::strcmp(name, "auto");
  const bool can3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool can4 = can3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  if (can4 && (any || !std::strcmp(name, "v4"))) return &v4::table();
  if (can3 && (any || !std::strcmp(name, "v3"))) return &v3::table();
  if (__builtin_cpu_supports("sse4.2") && (any || !std::strcmp(name, "v2"))) return &v2::table();
  return nullptr;
#endif
}

const Kernels* active() {
  const Kernels* table = chosen.load(std::memory_order_acquire);
  if (table) return table;
  table = find_table("auto");
  chosen.store(table, std::memory_order_release);
  return table;
}

// Runs one kernel of the chosen table; turns any exception into a status.
template <class Call>
int guarded(const Call& call) noexcept {
  try {
    const Kernels* table = active();
    if (!table) return fail(GNNLAB_INTERNAL, "this processor lacks SSE4.2, which gnnlab's kernels need");
    return call(*table);
  } catch (const std::exception& error) {
    return fail(GNNLAB_INTERNAL, "a gnnlab kernel failed: %s", error.what());
  } catch (...) {
    return fail(GNNLAB_INTERNAL, "a gnnlab kernel failed");
  }
}

bool bad_bytes(int bytes) { return bytes != 4 && bytes != 8; }
bool bad_float(int dtype) { return dtype < GNNLAB_F32 || dtype > GNNLAB_F16; }
bool is_int(int dtype) { return dtype == GNNLAB_I32 || dtype == GNNLAB_I64; }

bool bad_rows(const gnnlab_rows* rows) {
  return !rows || !rows->indptr || rows->num_rows < 0 || rows->num_edges < 0 ||
         bad_bytes(rows->index_bytes);
}

bool no_col(const gnnlab_rows* rows) { return !rows->col && rows->num_edges > 0; }

bool bad_heads(int64_t heads, int64_t width, const void* weight, int64_t weight_heads) {
  return heads < 0 || width < 0 || (weight && weight_heads != 1 && weight_heads != heads);
}

bool bad_reduce(int reduce, int dtype, const void* arg) {
  if (reduce < GNNLAB_SUM || reduce > GNNLAB_MUL) return true;
  if (arg && reduce != GNNLAB_MAX && reduce != GNNLAB_MIN) return true;
  return bad_float(dtype) && !(is_int(dtype) && reduce != GNNLAB_MEAN);
}

int refuse(const char* function) {
  return fail(GNNLAB_BAD_ARGUMENT,
              "%s: a size is negative, or a dtype, reduction or index width is unknown", function);
}

}  // namespace

bool may_use_threads() { return !forked.load(std::memory_order_relaxed); }

int fail(int status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace gnnlab

using namespace gnnlab;

GNNLAB_API int gnnlab_abi_version(void) { return GNNLAB_ABI_VERSION; }
GNNLAB_API const char* gnnlab_last_error(void) { return last_error; }

GNNLAB_API int gnnlab_has_openmp(void) {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

GNNLAB_API const char* gnnlab_isa(void) {
  const Kernels* table = active();
  return table ? table->isa : "none";
}

GNNLAB_API int gnnlab_select_isa(const char* name) {
  const Kernels* table = name ? find_table(name) : nullptr;
  if (!table)
    return fail(GNNLAB_BAD_ARGUMENT, "this machine or this build cannot run instruction set \"%s\"",
                name ? name : "");
  chosen.store(table, std::memory_order_release);
  return GNNLAB_OK;
}

GNNLAB_API int gnnlab_same_bytes(const void* a, const void* b, int64_t bytes) {
  return bytes <= 0 || std::memcmp(a, b, static_cast<size_t>(bytes)) == 0;
}

GNNLAB_API int gnnlab_check_index(const void* index, int index_bytes, int64_t count, int64_t bound,
                                  int* sorted) {
  if (bad_bytes(index_bytes) || count < 0 || bound < 0 || !sorted) return refuse("gnnlab_check_index");
  return guarded([&](const Kernels& k) { return k.check_index(index, index_bytes, count, bound, sorted); });
}

GNNLAB_API int gnnlab_check_indptr(const int64_t* indptr, int64_t num_rows, int64_t num_edges) {
  if (!indptr || num_rows < 0 || num_edges < 0) return refuse("gnnlab_check_indptr");
  return guarded([&](const Kernels& k) { return k.check_indptr(indptr, num_rows, num_edges); });
}

GNNLAB_API int gnnlab_plan_build(const void* key, const void* other, int index_bytes, int64_t num_edges,
                                 int64_t num_keys, int64_t num_other, int64_t* indptr, void* col,
                                 void* perm, int out_bytes, int threads) {
  if (bad_bytes(index_bytes) || bad_bytes(out_bytes) || num_edges < 0 || num_keys < 0 ||
      num_other < 0 || !indptr || (col && !other && num_edges > 0))
    return refuse("gnnlab_plan_build");
  return guarded([&](const Kernels& k) {
    return k.plan_build(key, other, index_bytes, num_edges, num_keys, num_other, indptr, col, perm,
                        out_bytes, threads);
  });
}

GNNLAB_API int gnnlab_gather(const void* x, int64_t stride_bytes, const void* index, int index_bytes,
                             int64_t num_edges, int64_t num_src, int64_t row_bytes, void* out,
                             int threads) {
  if (bad_bytes(index_bytes) || num_edges < 0 || num_src < 0 || row_bytes < 0)
    return refuse("gnnlab_gather");
  return guarded([&](const Kernels& k) {
    return k.gather(x, stride_bytes, index, index_bytes, num_edges, num_src, row_bytes, out, threads);
  });
}

GNNLAB_API int gnnlab_scatter(const void* src, int64_t lds, const void* index, int index_bytes,
                              int64_t num_edges, int64_t num_dst, int64_t width, int reduce, int dtype,
                              void* out, int64_t* arg, int strategy, int threads) {
  if (bad_bytes(index_bytes) || bad_reduce(reduce, dtype, arg) || num_edges < 0 || num_dst < 0 ||
      width < 0)
    return refuse("gnnlab_scatter");
  return guarded([&](const Kernels& k) {
    return k.scatter(src, lds, index, index_bytes, num_edges, num_dst, width, reduce, dtype, out, arg,
                     strategy, threads);
  });
}

GNNLAB_API int gnnlab_reduce(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads,
                             int64_t width, const void* weight, int64_t weight_heads, int reduce,
                             int dtype, void* out, void* arg, int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, weight, weight_heads) || bad_reduce(reduce, dtype, arg))
    return refuse("gnnlab_reduce");
  return guarded([&](const Kernels& k) {
    return k.reduce(rows, x, ldx, heads, width, weight, weight_heads, reduce, dtype, out, arg, threads);
  });
}

GNNLAB_API int gnnlab_reduce_multi(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads,
                                   int64_t width, const void* weight, int64_t weight_heads, int dtype,
                                   void* sum, void* mean, void* max, void* min, void* std,
                                   int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, weight, weight_heads) || bad_float(dtype))
    return refuse("gnnlab_reduce_multi");
  return guarded([&](const Kernels& k) {
    return k.reduce_multi(rows, x, ldx, heads, width, weight, weight_heads, dtype, sum, mean, max, min,
                          std, threads);
  });
}

GNNLAB_API int gnnlab_reduce_arg_backward(const gnnlab_rows* rows, const void* grad, const void* arg,
                                          const void* x, int64_t ldx, int64_t heads, int64_t width,
                                          const void* weight, int64_t weight_heads, int64_t num_src,
                                          int dtype, void* gx, void* gweight, int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, weight, weight_heads) || bad_float(dtype) ||
      num_src < 0 || (gweight && !x && rows->num_edges > 0))
    return refuse("gnnlab_reduce_arg_backward");
  return guarded([&](const Kernels& k) {
    return k.reduce_arg_backward(rows, grad, arg, x, ldx, heads, width, weight, weight_heads, num_src,
                                 dtype, gx, gweight, threads);
  });
}

GNNLAB_API int gnnlab_spmm_backward(const gnnlab_rows* rows, const void* grad, int64_t ldg, const void* x,
                                    int64_t ldx, int64_t heads, int64_t width, const void* weight,
                                    int64_t weight_heads, int dtype, void* gx, void* gweight,
                                    int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype) ||
      (weight_heads != 1 && weight_heads != heads))
    return refuse("gnnlab_spmm_backward");
  if (!gx && !gweight) return GNNLAB_OK;
  return guarded([&](const Kernels& k) {
    return k.spmm_backward(rows, grad, ldg, x, ldx, heads, width, weight, weight_heads, dtype, gx,
                           gweight, threads);
  });
}

GNNLAB_API int gnnlab_sddmm(const gnnlab_rows* rows, const void* a, int64_t lda, const void* b,
                            int64_t ldb, int64_t heads, int64_t width, int op, int dtype, void* out,
                            int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype) || op < GNNLAB_DOT ||
      op > GNNLAB_DIV)
    return refuse("gnnlab_sddmm");
  return guarded([&](const Kernels& k) {
    return k.sddmm(rows, a, lda, b, ldb, heads, width, op, dtype, out, threads);
  });
}

GNNLAB_API int gnnlab_softmax(const gnnlab_rows* rows, const void* row_of, int row_bytes, const void* src,
                              int64_t heads, int kind, int dtype, void* out, int threads) {
  if (bad_rows(rows) || heads < 0 || bad_float(dtype) || kind < GNNLAB_SOFTMAX ||
      kind > GNNLAB_LOGSUMEXP || (row_of && bad_bytes(row_bytes)))
    return refuse("gnnlab_softmax");
  return guarded([&](const Kernels& k) {
    return k.softmax(rows, row_of, row_bytes, src, heads, kind, dtype, out, threads);
  });
}

GNNLAB_API int gnnlab_softmax_backward(const gnnlab_rows* rows, const void* row_of, int row_bytes,
                                       const void* out, const void* grad, int64_t heads, int kind,
                                       int dtype, void* gsrc, int threads) {
  if (bad_rows(rows) || heads < 0 || bad_float(dtype) || kind < GNNLAB_SOFTMAX ||
      kind > GNNLAB_LOG_SOFTMAX || (row_of && bad_bytes(row_bytes)))
    return refuse("gnnlab_softmax_backward");
  return guarded([&](const Kernels& k) {
    return k.softmax_backward(rows, row_of, row_bytes, out, grad, heads, kind, dtype, gsrc, threads);
  });
}

GNNLAB_API int gnnlab_gat(const gnnlab_rows* rows, const void* x, const void* a_src, const void* a_dst,
                          const void* edge, int64_t heads, int64_t width, double slope, double dropout,
                          uint64_t seed, int dtype, void* out, void* max, void* total, int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype) ||
      !(dropout >= 0 && dropout <= 1))
    return refuse("gnnlab_gat");
  return guarded([&](const Kernels& k) {
    return k.gat(rows, x, a_src, a_dst, edge, heads, width, slope, dropout, seed, dtype, out, max, total,
                 threads);
  });
}

GNNLAB_API int gnnlab_gatv2(const gnnlab_rows* rows, const void* x_src, const void* x_dst,
                            const void* att, const void* edge, int64_t heads, int64_t width,
                            double slope, int dtype, void* out, void* max, void* total, int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype))
    return refuse("gnnlab_gatv2");
  return guarded([&](const Kernels& k) {
    return k.gatv2(rows, x_src, x_dst, att, edge, heads, width, slope, dtype, out, max, total, threads);
  });
}

GNNLAB_API int gnnlab_attention(const gnnlab_rows* rows, const void* q, const void* k, const void* v,
                                const void* bias, int64_t heads, int64_t width, double scale, int dtype,
                                void* out, void* max, void* total, int threads) {
  if (bad_rows(rows) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype))
    return refuse("gnnlab_attention");
  return guarded([&](const Kernels& kernels) {
    return kernels.attention(rows, q, k, v, bias, heads, width, scale, dtype, out, max, total, threads);
  });
}

GNNLAB_API int gnnlab_gat_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                                   const void* out, const void* x, const void* a_src, const void* a_dst,
                                   const void* edge, const void* max, const void* total, int64_t heads,
                                   int64_t width, double slope, double dropout, uint64_t seed, int dtype,
                                   void* gx, void* ga_src, void* ga_dst, void* gedge, int threads) {
  if (bad_rows(rows) || bad_rows(rows_t) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype) ||
      !(dropout >= 0 && dropout <= 1))
    return refuse("gnnlab_gat_backward");
  return guarded([&](const Kernels& k) {
    return k.gat_backward(rows, rows_t, grad, out, x, a_src, a_dst, edge, max, total, heads, width,
                          slope, dropout, seed, dtype, gx, ga_src, ga_dst, gedge, threads);
  });
}

GNNLAB_API int gnnlab_gatv2_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t,
                                     const void* grad, const void* out, const void* x_src,
                                     const void* x_dst, const void* att, const void* edge,
                                     const void* max, const void* total, int64_t heads, int64_t width,
                                     double slope, int dtype, void* gx_src, void* gx_dst, void* gatt,
                                     void* gedge, int threads) {
  if (bad_rows(rows) || bad_rows(rows_t) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype))
    return refuse("gnnlab_gatv2_backward");
  return guarded([&](const Kernels& k) {
    return k.gatv2_backward(rows, rows_t, grad, out, x_src, x_dst, att, edge, max, total, heads, width,
                            slope, dtype, gx_src, gx_dst, gatt, gedge, threads);
  });
}

GNNLAB_API int gnnlab_attention_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t,
                                         const void* grad, const void* out, const void* q, const void* k,
                                         const void* v, const void* bias, const void* max,
                                         const void* total, int64_t heads, int64_t width, double scale,
                                         int dtype, void* gq, void* gk, void* gv, void* gbias,
                                         int threads) {
  if (bad_rows(rows) || bad_rows(rows_t) || bad_heads(heads, width, nullptr, 1) || bad_float(dtype))
    return refuse("gnnlab_attention_backward");
  return guarded([&](const Kernels& kernels) {
    return kernels.attention_backward(rows, rows_t, grad, out, q, k, v, bias, max, total, heads, width,
                                      scale, dtype, gq, gk, gv, gbias, threads);
  });
}

GNNLAB_API int gnnlab_relu_sum(const gnnlab_rows* rows, const void* x, const void* edge, int64_t width,
                               int dtype, void* out, int threads) {
  if (bad_rows(rows) || width < 0 || bad_float(dtype)) return refuse("gnnlab_relu_sum");
  return guarded(
      [&](const Kernels& k) { return k.relu_sum(rows, x, edge, width, dtype, out, threads); });
}

GNNLAB_API int gnnlab_relu_sum_backward(const gnnlab_rows* rows_t, const void* grad, const void* x,
                                        const void* edge, int64_t width, int dtype, void* gx,
                                        void* gedge, int threads) {
  if (bad_rows(rows_t) || width < 0 || bad_float(dtype)) return refuse("gnnlab_relu_sum_backward");
  return guarded([&](const Kernels& k) {
    return k.relu_sum_backward(rows_t, grad, x, edge, width, dtype, gx, gedge, threads);
  });
}

GNNLAB_API int gnnlab_gated_sum(const gnnlab_rows* rows, const void* key, const void* query,
                                const void* value, int64_t width, int dtype, void* out, int threads) {
  if (bad_rows(rows) || width < 0 || bad_float(dtype)) return refuse("gnnlab_gated_sum");
  return guarded([&](const Kernels& k) {
    return k.gated_sum(rows, key, query, value, width, dtype, out, threads);
  });
}

GNNLAB_API int gnnlab_gated_sum_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t,
                                         const void* grad, const void* key, const void* query,
                                         const void* value, int64_t width, int dtype, void* gkey,
                                         void* gquery, void* gvalue, int threads) {
  if (bad_rows(rows) || bad_rows(rows_t) || width < 0 || bad_float(dtype))
    return refuse("gnnlab_gated_sum_backward");
  return guarded([&](const Kernels& k) {
    return k.gated_sum_backward(rows, rows_t, grad, key, query, value, width, dtype, gkey, gquery,
                                gvalue, threads);
  });
}

GNNLAB_API int gnnlab_sample_count(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes,
                                   int64_t fanout, int replace, int64_t* indptr) {
  if (bad_rows(rows) || num_nodes < 0 || fanout < -1 || !indptr) return refuse("gnnlab_sample_count");
  return guarded([&](const Kernels& k) {
    return k.sample_count(rows, nodes, num_nodes, fanout, replace, indptr);
  });
}

GNNLAB_API int gnnlab_sample_draw(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes,
                                  int64_t fanout, int replace, uint64_t seed, int64_t hop,
                                  const int64_t* indptr, void* place, void* neighbour, int threads) {
  if (bad_rows(rows) || no_col(rows) || num_nodes < 0 || fanout < -1 || hop < 0 || !indptr)
    return refuse("gnnlab_sample_draw");
  return guarded([&](const Kernels& k) {
    return k.sample_draw(rows, nodes, num_nodes, fanout, replace, seed, hop, indptr, place, neighbour,
                         threads);
  });
}

GNNLAB_API int gnnlab_sample_number(void* table, int64_t slots, int hashed, int64_t base, void* ids,
                                    int index_bytes, int64_t num_ids, int64_t* nodes, int64_t* count) {
  if (!table || slots < 0 || (hashed && (slots < 2 || (slots & (slots - 1)))) || base < 0 ||
      bad_bytes(index_bytes) || num_ids < 0 || !nodes || !count)
    return refuse("gnnlab_sample_number");
  return guarded([&](const Kernels& k) {
    return k.sample_number(table, slots, hashed, base, ids, index_bytes, num_ids, nodes, count);
  });
}

GNNLAB_API int gnnlab_partition(const gnnlab_rows* rows, const gnnlab_rows* back, int64_t num_parts,
                                int64_t capacity, int64_t passes, int64_t* part) {
  if (bad_rows(rows) || bad_rows(back) || no_col(rows) || no_col(back) || rows->num_rows != back->num_rows ||
      rows->index_bytes != back->index_bytes || num_parts < 1 || capacity < 1 || passes < 1 ||
      (rows->num_rows > 0 && (!part || capacity < (rows->num_rows - 1) / num_parts + 1)))
    return refuse("gnnlab_partition");
  return guarded([&](const Kernels& k) {
    return k.partition(rows, back, num_parts, capacity, passes, part);
  });
}

namespace {
bool bad_points(const void* x, const void* graph_x, int64_t num_x, const void* y, const void* graph_y,
                int64_t num_y, int64_t num_graphs, int64_t dim) {
  const bool lone = num_graphs == 1 && !graph_x && !graph_y;
  const bool lacks_graph = !lone && ((num_x > 0 && !graph_x) || (y && num_y > 0 && !graph_y));
  return num_x < 0 || num_y < 0 || num_graphs < 0 || dim < 0 || (num_x > 0 && !x) || lacks_graph ||
         (!y && num_y != num_x);
}
}  // namespace

GNNLAB_API int gnnlab_radius(const double* x, const int64_t* graph_x, int64_t num_x, const double* y,
                             const int64_t* graph_y, int64_t num_y, int64_t num_graphs, int64_t dim,
                             double r, int skip_same, int64_t* indptr, void** found, int threads) {
  if (bad_points(x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim) || !(r > 0) || !indptr || !found)
    return refuse("gnnlab_radius");
  return guarded([&](const Kernels& k) {
    return k.radius(x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim, r, skip_same, indptr, found,
                    threads);
  });
}

GNNLAB_API int gnnlab_found_write(void* found, const int64_t* indptr, int64_t* source, int64_t* target,
                                  int threads) {
  if (!found) return GNNLAB_OK;
  if (source && (!indptr || !target)) return refuse("gnnlab_found_write");
  return guarded([&](const Kernels& k) { return k.found_write(found, indptr, source, target, threads); });
}

GNNLAB_API int gnnlab_knn(const double* x, const int64_t* graph_x, int64_t num_x, const double* y,
                          const int64_t* graph_y, int64_t num_y, int64_t num_graphs, int64_t dim,
                          int64_t k, int skip_same, int64_t* out, int threads) {
  if (bad_points(x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim) || k < 0 ||
      (!out && k > 0 && num_y > 0))
    return refuse("gnnlab_knn");
  return guarded([&](const Kernels& kernels) {
    return kernels.knn(x, graph_x, num_x, y, graph_y, num_y, num_graphs, dim, k, skip_same, out, threads);
  });
}
