// Fibers: stacks of their own in one operating-system thread, switched by hand on x86-64 and by
// ucontext elsewhere. No fiber may let an exception out, and a dropped one runs no destructors.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

struct Fiber {
  void* stack_pointer;
};

// Saves the registers that a called function must keep, swaps stacks and returns on the other one.
extern "C" void gl_switch_stack(void** save, void* load);
asm(R"(
.text
.type gl_switch_stack, @function
gl_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gl_switch_stack, .-gl_switch_stack
)");

inline void switch_fiber(Fiber& from, const Fiber& to) {
  gl_switch_stack(&from.stack_pointer, to.stack_pointer);
}

inline void start_fiber(Fiber& fiber, char* stack, size_t bytes, void (*body)()) {
  void** top = (void**)(((uintptr_t)stack + bytes) / 16 * 16);
  *--top = nullptr;        // aligns the stack as a call would
  *--top = (void*)body;    // where the first switch returns to
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.stack_pointer = top;
}

#else

#include <ucontext.h>

struct Fiber {
  ucontext_t context;
};

inline void switch_fiber(Fiber& from, const Fiber& to) { swapcontext(&from.context, &to.context); }

inline void start_fiber(Fiber& fiber, char* stack, size_t bytes, void (*body)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, body, 0);
}

#endif
