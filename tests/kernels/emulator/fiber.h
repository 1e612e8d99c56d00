// The threads of a kernel: coroutines of one thread of the CPU.
#pragma once
#undef _FORTIFY_SOURCE  // which takes a jump to another stack for a mistake
#include <csetjmp>
#include <ucontext.h>
#include <vector>
#include "device.h"

dim3 gridDim, blockDim, blockIdx, threadIdx;

// Used again for one body after another. Only its first start goes by ucontext, whose every switch asks the system for
// the signal mask, which takes twenty times as long as setjmp.
struct Fiber { ucontext_t context; jmp_buf at; std::vector<char> stack; dim3 index; bool made, done; };
static jmp_buf scheduler;
static Fiber* current;
static void (*body)(void**);
static void** body_args;
static void leave_fiber() { if (!_setjmp(current->at)) _longjmp(scheduler, 1); }
static void enter() { for (;;) { body(body_args); current->done = true; leave_fiber(); } }
static void resume(Fiber& fiber)
{
    current = &fiber;
    if (_setjmp(scheduler)) return;
    if (fiber.made) _longjmp(fiber.at, 1);
    fiber.made = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, enter, 0);
    setcontext(&fiber.context);
}

// As long as it lives, what is denormal counts as 0, as an operand and as a result.
#ifdef __SSE__
#include <xmmintrin.h>
struct Flushing {
    const unsigned before = _mm_getcsr();
    explicit Flushing(bool flushes) { if (flushes) _mm_setcsr(before | 0x8040); }
    ~Flushing() { _mm_setcsr(before); }
};
#else
struct Flushing { explicit Flushing(bool) {} };
#endif
