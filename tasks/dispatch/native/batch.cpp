// The exported functions: memory of a batch of shops, checks of arguments, threads over episodes.
#include <cstdlib>
#include <initializer_list>

#include "batch.h"
#include "kernels.h"

namespace gnnlab::dispatch {
namespace {

// Hands out aligned pieces of one block; with base null it only adds up their sizes.
struct Carver {
  char* base;
  int64_t used = 0;
  template <typename T>
  void take(T*& piece, int64_t count) {
    used = (used + 7) & ~int64_t{7};
    piece = reinterpret_cast<T*>(base + used);
    used += count * static_cast<int64_t>(sizeof(T));
  }
};

// Done for every row of every call: without loops over lists of pieces it is a tenth of a step faster.
int64_t carve(Row& r, char* base, int64_t n, int64_t m, int64_t longest) {
  Carver c{base};
  const int64_t words = (n + 63) / 64;
  c.take(r.head, 1);
  c.take(r.ready, n);
  c.take(r.until, m);
  c.take(r.began, m);
  c.take(r.load, m);
  c.take(r.queue_work, m);
  c.take(r.down_from, m);
  c.take(r.down_to, m);
  c.take(r.repaired, m);
  c.take(r.window, m);
  c.take(r.start, n * longest);
  c.take(r.end, n * longest);
  c.take(r.depart, n * longest);
  c.take(r.queue, m * words);
  c.take(r.outside, words);
  c.take(r.next, n);
  c.take(r.place, n);
  c.take(r.occupant, m);
  c.take(r.queued, m);
  c.take(r.last, m);
  c.take(r.before, n * longest);
  c.take(r.status, n);
  c.take(r.holds, m);
  c.take(r.declined, m);
  return (c.used + 63) / 64 * 64;
}

// Heads and tails of the machines' operations give the bound; see bounds.py.
void measure(Instance& in, int64_t* tail) {
  in.total = in.lb0 = in.slowest = in.operations = 0;
  for (int64_t j = 0; j < in.jobs; ++j) {
    int64_t* t = tail + j * (in.longest + 1);
    for (int64_t i = in.longest; i >= in.length[j]; --i) t[i] = 0;
    for (int64_t i = in.length[j] - 1; i >= 0; --i) {
      const int64_t p = in.time[j * in.longest + i];
      t[i] = t[i + 1] + p;
      in.slowest = p > in.slowest ? p : in.slowest;
    }
    in.total += t[0];
    in.operations += in.length[j];
    in.lb0 = t[0] > in.lb0 ? t[0] : in.lb0;
  }
  for (int64_t k = 0; k < in.machines; ++k) {
    int64_t head = kNever, end = kNever, work = 0;
    for (int64_t j = 0; j < in.jobs; ++j)
      for (int64_t i = 0; i < in.length[j]; ++i) {
        if (in.machine[j * in.longest + i] != k) continue;
        const int64_t* t = tail + j * (in.longest + 1);
        work += in.time[j * in.longest + i];
        head = t[0] - t[i] < head ? t[0] - t[i] : head;
        end = t[i + 1] < end ? t[i + 1] : end;
      }
    if (head < kNever && head + work + end > in.lb0) in.lb0 = head + work + end;
  }
  in.tail = tail;
  in.mean_time = in.total > 0 ? static_cast<double>(in.total) / static_cast<double>(in.operations) : 1;
}

int refuse(const char* why) { return fail(GNNLAB_BAD_ARGUMENT, "the job shop was given %s", why); }

}  // namespace

Row row_at(const Row& like, char* memory, const gnnlab_shop_row* how) {
  Row row = like;
  row.how = how;
  carve(row, memory, like.in->jobs, like.in->machines, like.in->longest);
  return row;
}

Row row_of(const gnnlab_shop* shop, int64_t r) {
  Row row;
  const gnnlab_shop_row& how = shop->rows[r];
  const Instance& in = shop->instances[how.instance];
  row.in = &in;
  row.how = &how;
  row.options = &shop->options;
  row.words = (in.jobs + 63) / 64;
  carve(row, shop->memory + r * shop->row_bytes, in.jobs, in.machines, in.longest);
  return row;
}

}  // namespace gnnlab::dispatch

using namespace gnnlab;
using namespace gnnlab::dispatch;

GNNLAB_SHOP_EXPORT int gnnlab_shop_free(gnnlab_shop* shop) {
  if (!shop) return GNNLAB_OK;
  for (void* block : {static_cast<void*>(shop->instances), static_cast<void*>(shop->rows), static_cast<void*>(shop->memory),
                      static_cast<void*>(shop->ids), static_cast<void*>(shop->times)})
    std::free(block);
  std::free(shop);
  return GNNLAB_OK;
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_new(int64_t num_instances, const int64_t* sizes, const int64_t* machines,
                                       const int64_t* times, const int64_t* lengths, int64_t num_rows,
                                       const gnnlab_shop_row* rows, const gnnlab_shop_options* options,
                                       gnnlab_shop** out) {
  if (num_instances < 0 || num_rows < 0 || !sizes || !rows || !options || !out) return refuse("no instances or rows");
  int64_t ids = 0, cells = 0;
  gnnlab_shop* shop = static_cast<gnnlab_shop*>(std::calloc(1, sizeof(gnnlab_shop)));
  if (!shop) return fail(GNNLAB_NO_MEMORY, "out of memory");
  Row unused;
  for (int64_t s = 0; s < num_instances; ++s) {
    const int64_t n = sizes[3 * s], m = sizes[3 * s + 1], longest = sizes[3 * s + 2];
    if (n < 1 || m < 1 || longest < 1) {
      gnnlab_shop_free(shop);
      return refuse("an instance without jobs, machines or operations");
    }
    ids += n * longest + n;
    cells += n * longest + n * (longest + 1);
    shop->most_jobs = n > shop->most_jobs ? n : shop->most_jobs;
    const int64_t bytes = carve(unused, nullptr, n, m, longest);
    shop->row_bytes = bytes > shop->row_bytes ? bytes : shop->row_bytes;
  }
  shop->options = *options;
  shop->num_instances = num_instances;
  shop->num_rows = num_rows;
  shop->instances = static_cast<Instance*>(std::calloc(static_cast<size_t>(num_instances) + 1, sizeof(Instance)));
  shop->rows = static_cast<gnnlab_shop_row*>(std::calloc(static_cast<size_t>(num_rows) + 1, sizeof(gnnlab_shop_row)));
  shop->memory = static_cast<char*>(std::calloc(static_cast<size_t>(num_rows) + 1, static_cast<size_t>(shop->row_bytes)));
  shop->ids = static_cast<int32_t*>(std::calloc(static_cast<size_t>(ids) + 1, sizeof(int32_t)));
  shop->times = static_cast<int64_t*>(std::calloc(static_cast<size_t>(cells) + 1, sizeof(int64_t)));
  if (!shop->instances || !shop->rows || !shop->memory || !shop->ids || !shop->times) {
    gnnlab_shop_free(shop);
    return fail(GNNLAB_NO_MEMORY, "out of memory for %lld job shops", static_cast<long long>(num_rows));
  }
  int32_t* id = shop->ids;
  int64_t* cell = shop->times;
  for (int64_t s = 0; s < num_instances; ++s) {
    Instance& in = shop->instances[s];
    in.jobs = sizes[3 * s], in.machines = sizes[3 * s + 1], in.longest = sizes[3 * s + 2];
    const int64_t count = in.jobs * in.longest;
    int32_t *machine = id, *length = id + count;
    int64_t *time = cell, *tail = cell + count;
    for (int64_t o = 0; o < count; ++o) {
      machine[o] = static_cast<int32_t>(machines[o]);
      time[o] = times[o];
    }
    for (int64_t j = 0; j < in.jobs; ++j) {
      bool bad = lengths[j] < 1 || lengths[j] > in.longest;
      for (int64_t i = 0; !bad && i < lengths[j]; ++i)
        bad = machine[j * in.longest + i] < 0 || machine[j * in.longest + i] >= in.machines || time[j * in.longest + i] < 0;
      if (bad) {
        gnnlab_shop_free(shop);
        return refuse("a job with a machine, time or length out of range");
      }
      length[j] = static_cast<int32_t>(lengths[j]);
    }
    in.machine = machine, in.length = length, in.time = time;
    measure(in, tail);
    id += count + in.jobs;
    cell += count + in.jobs * (in.longest + 1);
    machines += count, times += count, lengths += in.jobs;
  }
  for (int64_t r = 0; r < num_rows; ++r) {
    if (rows[r].instance < 0 || rows[r].instance >= num_instances) {
      gnnlab_shop_free(shop);
      return refuse("a row that names no instance");
    }
    shop->rows[r] = rows[r];
  }
  *out = shop;
  return GNNLAB_OK;
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_reset(gnnlab_shop* shop, const int64_t* rows, int64_t count, int threads) {
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t) {
    begin(r);
    settle(r, true);
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_step(gnnlab_shop* shop, const int64_t* rows, int64_t count, const int64_t* actions,
                                        double* reward, uint8_t* flags, int threads) {
  return each_row(shop, rows, count, threads, [&](Row& r, int64_t i) -> const char* {
    if (r.head->flags) {
      reward[i] = 0;
    } else {
      const int64_t action = actions[i] == shop->most_jobs ? r.in->jobs : actions[i];  // WAIT
      if (const char* why = illegal(r, action)) return why;
      act(r, action);
      reward[i] = take_reward(r);
    }
    flags[i] = static_cast<uint8_t>(r.head->flags);
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_mask(const gnnlab_shop* shop, const int64_t* rows, int64_t count, uint8_t* mask) {
  const int64_t width = shop->most_jobs + 1;
  return each_row(shop, rows, count, 1, [&](Row& r, int64_t i) {
    write_mask(r, mask + i * width, width);
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_state(const gnnlab_shop* shop, const int64_t* rows, int64_t count, int64_t* out) {
  return each_row(shop, rows, count, 1, [&](Row& r, int64_t i) {
    const int64_t values[] = {r.head->time, makespan(r), r.head->flags, r.head->steps, r.head->swaps, lower_bound(r)};
    std::memcpy(out + 6 * i, values, sizeof values);
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_schedule(const gnnlab_shop* shop, int64_t row, int64_t* out) {
  return each_row(shop, &row, 1, 1, [&](Row& r, int64_t) {
    for (int64_t o = 0; o < r.in->jobs * r.in->longest; ++o) {
      out[3 * o] = r.start[o];
      out[3 * o + 1] = r.end[o];
      out[3 * o + 2] = r.depart[o];
    }
    return nullptr;
  });
}

GNNLAB_SHOP_EXPORT int gnnlab_shop_copy(gnnlab_shop* to, int64_t to_row, const gnnlab_shop* from, int64_t from_row) {
  if (to_row < 0 || to_row >= to->num_rows || from_row < 0 || from_row >= from->num_rows || to->row_bytes != from->row_bytes)
    return refuse("rows to copy that do not match");
  std::memcpy(to->memory + to_row * to->row_bytes, from->memory + from_row * from->row_bytes,
              static_cast<size_t>(to->row_bytes));
  return GNNLAB_OK;
}
