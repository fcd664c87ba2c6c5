// Runs a kernel on the CPU as a GPU would, one block at a time, and watches every access.
//
// Threads are fibers. One runs until it waits at a barrier or meets other lanes at a shuffle, ballot
// or gl_syncwarp. Blocks run in a random order. The compiler puts a call before every load and store
// of the kernel (__tsan_read4 and the like, at the end of this file); this finds
//   - accesses outside the tensors of the launch and outside shared memory,
//   - vector accesses at an address that is no multiple of their size,
//   - shared memory that is read before anyone wrote it,
//   - races: two threads touch the same place, one of them writes, and no barrier lies between;
//     between blocks nothing but the end of the launch is a barrier,
//   - lanes of a mask that do not all come, threads that miss a barrier, kernels that do not end.
// The first finding ends the launch with a sentence.
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"
#include "operation.h"

namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 64 * 1024;
constexpr uint32_t kMany = 0xffffffffu;

enum State { kReady, kAtWarp, kAtBarrier, kDone };
const char* const kOperations[] = {"shuffle", "ballot", "gl_syncwarp"};

struct Thread {
  Fiber fiber;
  State state;
  int line;  // where it waits
  int operation;
  uint32_t mask;
  int source;
  uint64_t value;
  uint64_t result;
};

// Who touched a piece of memory last. Blocks are numbered from 1; 0 is nobody. A thread's clock is
// the number of gl_syncwarp that it went through since the last barrier of its block.
struct Cell {
  uint32_t writer_block, writer_epoch;
  uint16_t writer, writer_clock;
  uint16_t reader_warp, reader_clock;
  uint32_t reader_block, reader_epoch, reader_lanes;
};

struct Memory {
  const char* name;
  uintptr_t begin, end;
  bool writable;
  size_t grain;  // bytes per cell
  std::unique_ptr<Cell, decltype(&free)> cells{nullptr, &free};

  void track() {
    cells.reset(static_cast<Cell*>(calloc((end - begin) / grain + 1, sizeof(Cell))));
  }
};

struct Machine {
  std::vector<std::unique_ptr<char[]>> stacks;
  std::vector<Thread> threads;
  std::vector<std::vector<uint16_t>> clocks;  // of a thread: what it knows of its warp's lanes
  std::vector<Memory> memory;                 // [0] arguments, [1] shared memory, then tensors
  size_t last = 0;                            // which memory was touched last
  std::vector<uint64_t> shared;
  Fiber scheduler;
  void (*kernel)(const void*);
  const void* args;
  int count = 0;    // threads of a block
  int current = 0;  // the running thread
  int64_t grid[2] = {0, 0};
  int64_t block[2] = {0, 0};
  uint32_t block_number = 0;
  uint32_t epoch = 0;  // barriers passed by this block
  int64_t accesses = 0;
  int64_t access_limit = 0;  // then the kernel is held to run for ever
  bool running = false;
  std::string error;
};

thread_local Machine* machine = nullptr;

[[noreturn]] void fail(const char* format, ...) {
  Machine& m = *machine;
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  m.error = "block " + std::to_string(m.block[0]) +
            (m.grid[1] > 1 ? "," + std::to_string(m.block[1]) : "") + ", thread " +
            std::to_string(m.current) + ": " + text;
  switch_fiber(m.threads[m.current].fiber, m.scheduler);
  abort();
}

void wait_as(State state) {
  Machine& m = *machine;
  Thread& thread = m.threads[m.current];
  thread.state = state;
  switch_fiber(thread.fiber, m.scheduler);
}

void body() {
  machine->kernel(machine->args);
  wait_as(kDone);
}

// Ends a meeting when all lanes of the mask are there; false when some are still to come.
bool complete(int first, const Thread& last) {
  Machine& m = *machine;
  uint64_t votes = 0;
  for (int lane = 0; lane < kWarp; lane++) {
    if (!(last.mask >> lane & 1)) continue;
    if (first + lane >= m.count)
      fail("the mask of a %s (line %d) names lane %d, which the block does not have",
           kOperations[last.operation], last.line, lane);
    Thread& other = m.threads[first + lane];
    if (other.state != kAtWarp) return false;
    if (other.mask != last.mask || other.line != last.line || other.operation != last.operation)
      fail("lanes of one warp meet at different places: %s in line %d with mask %08x, and lane %d at "
           "%s in line %d with mask %08x",
           kOperations[last.operation], last.line, last.mask, lane, kOperations[other.operation],
           other.line, other.mask);
    if (other.operation == GL_BALLOT && other.value) votes |= 1ull << lane;
  }
  for (int lane = 0; lane < kWarp; lane++) {
    if (!(last.mask >> lane & 1)) continue;
    Thread& other = m.threads[first + lane];
    other.state = kReady;
    if (other.operation == GL_SHUFFLE) {
      if (other.source < 0 || other.source >= kWarp || !(last.mask >> other.source & 1))
        fail("lane %d reads from lane %d in a shuffle (line %d) whose mask %08x lacks it", lane,
             other.source, other.line, last.mask);
      other.result = m.threads[first + other.source].value;
    }
    if (other.operation == GL_BALLOT) other.result = votes;
    if (other.operation == GL_SYNCWARP) m.clocks[first + lane][lane]++;
  }
  if (last.operation != GL_SYNCWARP) return true;
  std::vector<uint16_t> merged(kWarp, 0);
  for (int lane = 0; lane < kWarp; lane++)
    if (last.mask >> lane & 1)
      for (int i = 0; i < kWarp; i++)
        if (m.clocks[first + lane][i] > merged[i]) merged[i] = m.clocks[first + lane][i];
  for (int lane = 0; lane < kWarp; lane++)
    if (last.mask >> lane & 1) m.clocks[first + lane] = merged;
  return true;
}

Memory& memory_of(uintptr_t at, size_t bytes, bool write) {
  Machine& m = *machine;
  Memory& recent = m.memory[m.last];
  if (at >= recent.begin && at + bytes <= recent.end && (recent.writable || !write)) return recent;
  for (size_t i = 0; i < m.memory.size(); i++) {
    Memory& found = m.memory[i];
    if (at < found.begin || at + bytes > found.end || (write && !found.writable)) continue;
    m.last = i;
    return found;
  }
  const char* verb = write ? "writes" : "reads";
  const Memory* near = nullptr;  // say which end was missed
  uintptr_t least = 65536;
  for (const Memory& other : m.memory) {
    if (write && !other.writable) continue;
    const uintptr_t distance = at < other.begin ? other.begin - at : at + bytes - other.end;
    if (distance < least) near = &other, least = distance;
  }
  if (near != nullptr)
    fail("%s %zu bytes at offset %lld of %s, which has %zu bytes", verb, bytes,
         (long long)(at - near->begin), near->name, (size_t)(near->end - near->begin));
  fail("%s %zu bytes at %p, far from every tensor", verb, bytes, (void*)at);
}

// Whether an access of thread `other` of this block, at its clock, came before a gl_syncwarp that
// the running thread went through too.
bool ordered(int other, uint16_t clock) {
  Machine& m = *machine;
  return other == m.current || (other / kWarp == m.current / kWarp &&
                                m.clocks[m.current][other % kWarp] > clock);
}

void race(const Memory& memory, uintptr_t at, const char* verb, const char* other, uint32_t block,
          int thread) {
  fail("race in %s: %s offset %lld, which thread %d of block number %u %s without a barrier between",
       memory.name, verb, (long long)(at - memory.begin), thread, block - 1, other);
}

void check_writer(const Memory& memory, const Cell& cell, uintptr_t at, const char* verb) {
  const Machine& m = *machine;
  if (cell.writer_block == 0) return;
  if (cell.writer_block == m.block_number &&
      (cell.writer_epoch != m.epoch || ordered(cell.writer, cell.writer_clock)))
    return;
  race(memory, at, verb, "wrote", cell.writer_block, cell.writer);
}

void check_readers(const Memory& memory, const Cell& cell, uintptr_t at) {
  const Machine& m = *machine;
  if (cell.reader_block == 0) return;
  if (cell.reader_block == m.block_number && cell.reader_epoch != m.epoch) return;
  bool fine = cell.reader_block == m.block_number && cell.reader_warp != (uint16_t)kMany;
  int thread = cell.reader_warp * kWarp;
  for (int lane = 0; fine && lane < kWarp; lane++)
    if (cell.reader_lanes >> lane & 1) {
      thread = cell.reader_warp * kWarp + lane;
      fine = ordered(thread, cell.reader_clock);
    }
  if (!fine) race(memory, at, "writes", "read", cell.reader_block, thread);
}

void note_read(Cell& cell) {
  const Machine& m = *machine;
  const uint16_t warp = m.current / kWarp;
  const uint16_t clock = m.clocks[m.current][m.current % kWarp];
  const bool fresh = cell.reader_block == 0 || (cell.reader_block == m.block_number &&
                                                cell.reader_epoch != m.epoch);
  if (fresh) {
    cell.reader_warp = warp;
    cell.reader_lanes = 0;
    cell.reader_clock = 0;
  }
  cell.reader_block = fresh || cell.reader_block == m.block_number ? m.block_number : kMany;
  cell.reader_epoch = m.epoch;
  if (cell.reader_warp != warp) cell.reader_warp = (uint16_t)kMany;
  cell.reader_lanes |= 1u << m.current % kWarp;
  if (clock > cell.reader_clock) cell.reader_clock = clock;
}

void touch(const void* pointer, size_t bytes, bool write, bool aligned) {
  Machine* m = machine;
  if (m == nullptr || !m->running) return;
  const uintptr_t at = (uintptr_t)pointer;
  const uintptr_t stack = (uintptr_t)m->stacks[m->current].get();
  if (at >= stack && at < stack + kStackBytes) return;
  Memory& memory = memory_of(at, bytes, write);
  if (aligned && at % bytes != 0)
    fail("%s %zu bytes at offset %lld of %s: no multiple of the size", write ? "writes" : "reads",
         bytes, (long long)(at - memory.begin), memory.name);
  if (++m->accesses > m->access_limit) fail("the kernel does not end");
  if (!memory.cells) return;
  const size_t first = (at - memory.begin) / memory.grain;
  const size_t past = (at + bytes - 1 - memory.begin) / memory.grain + 1;
  for (size_t i = first; i < past; i++) {
    Cell& cell = memory.cells.get()[i];
    if (!write && &memory == &m->memory[1] && cell.writer_block != m->block_number)
      fail("reads offset %lld of shared memory, which nobody has written",
           (long long)(at - memory.begin));
    check_writer(memory, cell, at, write ? "writes" : "reads");
    if (!write) {
      note_read(cell);
      continue;
    }
    check_readers(memory, cell, at);
    cell.writer_block = m->block_number;
    cell.writer_epoch = m->epoch;
    cell.writer = m->current;
    cell.writer_clock = m->clocks[m->current][m->current % kWarp];
    cell.reader_block = 0;
  }
}

// No thread can go on: release the barrier, or say who waits for whom.
void unblock() {
  Machine& m = *machine;
  int waiting = -1, missing = -1;
  for (int t = 0; t < m.count; t++) {
    if (m.threads[t].state != kAtBarrier) missing = t;
    if (m.threads[t].state == kAtBarrier && waiting < 0) waiting = t;
  }
  if (missing < 0) {
    m.epoch++;
    for (int t = 0; t < m.count; t++) {
      const int line = m.threads[t].line;
      if (line != m.threads[0].line) {
        m.error = "threads of one block wait at different barriers: lines " +
                  std::to_string(m.threads[0].line) + " and " + std::to_string(line);
        return;
      }
      m.threads[t].state = kReady;
      m.clocks[t].assign(kWarp, 0);
    }
    return;
  }
  std::string who;
  for (int t = 0; t < m.count && who.empty(); t++) {
    const Thread& thread = m.threads[t];
    if (thread.state != kAtWarp) continue;
    for (int lane = 0; lane < kWarp && who.empty(); lane++) {
      const int other = t / kWarp * kWarp + lane;
      if (!(thread.mask >> lane & 1) || m.threads[other].state == kAtWarp) continue;
      who = "thread " + std::to_string(t) + " waits at a " + kOperations[thread.operation] +
            " (line " + std::to_string(thread.line) + ") for thread " + std::to_string(other) +
            ", which " + (m.threads[other].state == kDone ? "has left the kernel" : "waits at a barrier");
    }
  }
  if (who.empty() && waiting >= 0)
    who = "thread " + std::to_string(waiting) + " waits at a barrier (line " +
          std::to_string(m.threads[waiting].line) + ") that thread " + std::to_string(missing) +
          " does not reach";
  if (who.empty()) who = "threads wait for each other";
  m.error = "block " + std::to_string(m.block[0]) + ": " + who;
}

void run_block(std::mt19937& random) {
  Machine& m = *machine;
  m.epoch = 0;
  for (int t = 0; t < m.count; t++) {
    m.threads[t].state = kReady;
    start_fiber(m.threads[t].fiber, m.stacks[t].get(), kStackBytes, body);
    m.clocks[t].assign(kWarp, 0);
  }
  const int turn = random() % m.count;  // the thread that begins
  while (m.error.empty()) {
    bool moved = false;
    int done = 0;
    for (int i = 0; i < m.count && m.error.empty(); i++) {
      m.current = (turn + i) % m.count;
      Thread& thread = m.threads[m.current];
      if (thread.state == kReady) {
        moved = true;
        m.running = true;
        switch_fiber(m.scheduler, thread.fiber);
        m.running = false;
      }
      done += thread.state == kDone;
    }
    if (done == m.count) return;
    if (!moved && m.error.empty()) unblock();
  }
}

}  // namespace

extern "C" {

struct gl_tensor {
  void* begin;
  int64_t bytes;
  int64_t item_bytes;
  int64_t races;  // whether to look for races
};

// Returns 0, or 1 with a sentence in `error`. All of `args` is one struct of 8-byte fields.
int gl_emulate(void (*kernel)(const void*), const void* args, int64_t args_bytes, int64_t grid_x,
               int64_t grid_y, int block, int64_t shared_bytes, const gl_tensor* tensors, int count,
               unsigned seed, int64_t access_limit, char* error, int error_bytes) {
  Machine m;
  m.access_limit = access_limit;
  m.kernel = kernel;
  m.args = args;
  m.count = block;
  m.grid[0] = grid_x;
  m.grid[1] = grid_y;
  m.threads.resize(block);
  m.clocks.resize(block);
  for (int t = 0; t < block; t++) m.stacks.emplace_back(new char[kStackBytes]);
  m.shared.resize(shared_bytes / 8 + 3);
  const uintptr_t shared = ((uintptr_t)m.shared.data() + 15) / 16 * 16;
  m.memory.push_back({"the arguments", (uintptr_t)args, (uintptr_t)args + args_bytes, false, 8});
  m.memory.push_back({"shared memory", shared, shared + shared_bytes, true, 2});
  m.memory[1].track();
  std::vector<std::string> names;
  for (int i = 0; i < count; i++) names.push_back("argument " + std::to_string(i));
  for (int i = 0; i < count; i++) {
    const uintptr_t begin = (uintptr_t)tensors[i].begin;
    if (begin == 0 || tensors[i].bytes == 0) continue;
    const size_t grain = tensors[i].item_bytes < 4 ? tensors[i].item_bytes : 4;
    m.memory.push_back({names[i].c_str(), begin, begin + (uintptr_t)tensors[i].bytes, true, grain});
    if (tensors[i].races) m.memory.back().track();
  }
  std::vector<int64_t> order(grid_x * grid_y);
  for (size_t i = 0; i < order.size(); i++) order[i] = (int64_t)i;
  std::mt19937 random(seed);
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random() % i]);
  machine = &m;
  for (int64_t number : order) {
    m.block[0] = number % grid_x;
    m.block[1] = number / grid_x;
    m.block_number = (uint32_t)number + 1;
    memset(m.shared.data(), 0xff, m.shared.size() * 8);
    run_block(random);
    if (!m.error.empty()) break;
    for (size_t i = 0; i <= (size_t)shared_bytes / 2; i++) m.memory[1].cells.get()[i] = Cell();
  }
  machine = nullptr;
  snprintf(error, error_bytes, "%s", m.error.c_str());
  return !m.error.empty();
}

int gl_emulated_thread() { return machine->current; }
int gl_emulated_threads() { return machine->count; }
long long gl_emulated_block(int axis) { return machine->block[axis]; }
long long gl_emulated_blocks() { return machine->grid[0]; }
void* gl_shared_memory() { return (void*)machine->memory[1].begin; }

void gl_barrier(int line) {
  machine->threads[machine->current].line = line;
  wait_as(kAtBarrier);
}

unsigned long long gl_meet(int operation, unsigned mask, unsigned long long value, int source,
                           int line) {
  Machine& m = *machine;
  Thread& thread = m.threads[m.current];
  const int first = m.current / kWarp * kWarp;
  thread.operation = operation;
  thread.mask = mask;
  thread.line = line;
  thread.value = value;
  thread.source = source;
  if (!(mask >> m.current % kWarp & 1))
    fail("the mask %08x of a %s (line %d) lacks the calling lane", mask, kOperations[operation],
         line);
  thread.state = kAtWarp;
  if (!complete(first, thread)) wait_as(kAtWarp);
  return thread.result;
}

void gl_check_aligned(const void* pointer, int bytes) {
  if ((uintptr_t)pointer % bytes != 0)
    fail("a vector of %d bytes at %p: the address is no multiple of its size", bytes, pointer);
}

void gl_check_atomic(void* pointer, int bytes) {
  const Memory& memory = memory_of((uintptr_t)pointer, bytes, true);
  if ((uintptr_t)pointer % bytes != 0)
    fail("an atomic at offset %lld of %s: no multiple of its size",
         (long long)((uintptr_t)pointer - memory.begin), memory.name);
}

// What -fsanitize=thread calls.
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define WATCH(bytes)                                                        \
  void __tsan_read##bytes(void* at) { touch(at, bytes, false, true); }      \
  void __tsan_write##bytes(void* at) { touch(at, bytes, true, true); }      \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, false, false); } \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, true, false); }
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
void __tsan_read_range(void* at, unsigned long bytes) { touch(at, bytes, false, false); }
void __tsan_write_range(void* at, unsigned long bytes) { touch(at, bytes, true, false); }
}
