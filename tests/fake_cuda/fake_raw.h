// A grid of CUDA threads on the host, so that a kernel's own source runs where there is no GPU.
//
// Each thread is a fibre with its own stack; one runs at a time, until it waits or is done. Between
// two barriers one warp goes as far as it can before the next one starts, and one block before the
// next one, in the order of their numbers or backwards: two threads of different warps that touch
// the same memory without a barrier between them do so in either order. Threads that should wait
// together and do not are an error, and so are blocks that wait for ever.
//
// A thread that sleeps waits for another block. Dynamic shared memory is `shared_memory`:
// fake_raw.py rewrites its declaration.

// The C library's check of jumps takes those to another stack for mistakes.
#undef _FORTIFY_SOURCE
#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __launch_bounds__(n_threads)
#define __syncthreads() wait_for(AT_BARRIER, __LINE__)
#define __shfl_down_sync(mask, value, distance) shuffle_down(mask, value, distance, __LINE__)
#define __threadfence()
#define __nanosleep(duration) wait_for(ASLEEP, __LINE__)

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a < b ? b : a; }

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

enum { LANES = 32, MOST_FIBRES = 4096, STACK_BYTES = 65536 };  // as in fake_cuda.py
enum State { READY, AT_SHUFFLE, AT_BARRIER, ASLEEP, DONE };

struct Fibre {
    jmp_buf here;                   // where it goes on
    bool started;
    State state;
    int line;                       // where it waits
    int n_shuffles;
    unsigned long long offered[2];  // in shuffles, by turns: some threads may be one ahead
};

static Fibre fibres[MOST_FIBRES];
static int current;
static jmp_buf scheduler;
static const char* problem;
static void** arguments;
static char* shared_memory;
static char* stacks;
static bool backwards;

static void call_kernel();

static unsigned atomicAdd(unsigned* address, unsigned value)
{
    const unsigned before = *address;
    *address += value;
    return before;
}

// A function that is jumped back into must stay one by itself.
__attribute__((noinline)) static void wait_for(State state, int line)
{
    Fibre& fibre = fibres[current];
    fibre.state = state;
    fibre.line = line;
    if (!_setjmp(fibre.here)) _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void run_fibre()
{
    call_kernel();
    wait_for(DONE, 0);
}

__attribute__((noinline)) static void go_on(Fibre& fibre)
{
    if (fibre.started) _longjmp(fibre.here, 1);
    fibre.started = true;
    static ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = stacks + (size_t)current * STACK_BYTES;
    start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&start, run_fibre, 0);
    setcontext(&start);
}

__attribute__((noinline)) static void resume(int thread)
{
    current = thread;
    threadIdx.x = thread % blockDim.x;
    if (!_setjmp(scheduler)) go_on(fibres[thread]);
}

template <typename V>
static V shuffle_down(unsigned mask, V value, unsigned distance, int line)
{
    Fibre& fibre = fibres[current];
    const int turn = fibre.n_shuffles++ % 2;
    __builtin_memcpy(&fibre.offered[turn], &value, sizeof value);
    if (mask != 0xffffffffu) problem = "a shuffle leaves out threads of the warp";
    wait_for(AT_SHUFFLE, line);
    // Beyond the end of the warp a thread gets its own value.
    const unsigned lane = threadIdx.x % LANES;
    const unsigned source = lane + distance < LANES ? current + distance : current;
    if (threadIdx.x + source - current >= blockDim.x) {
        problem = "a shuffle takes from a thread that is not there";
    } else {
        __builtin_memcpy(&value, &fibres[source].offered[turn], sizeof value);
    }
    return value;
}

static bool are_together(int first, int last)
{
    for (int i = first; i < last; ++i) {
        if (fibres[i].state != fibres[first].state || fibres[i].line != fibres[first].line) {
            return false;
        }
    }
    return true;
}

static bool any_is(State state, int first, int last)
{
    for (int i = first; i < last; ++i) { if (fibres[i].state == state) return true; }
    return false;
}

static void make_ready(int first, int last)
{
    for (int i = first; i < last; ++i) { fibres[i].state = READY; }
}

// Runs threads of a warp until they are all at a barrier, or done; or one sleeps.
static void run_warp(int first, int last)
{
    for (int i = first; i < last; ++i) { if (fibres[i].state == ASLEEP) fibres[i].state = READY; }
    while (!problem) {
        for (int i = first; i < last; ++i) {
            const int thread = backwards ? first + last - 1 - i : i;
            if (fibres[thread].state == READY) resume(thread);
        }
        if (any_is(ASLEEP, first, last)) return;
        if (!are_together(first, last)) problem = "threads of a warp wait at different places";
        if (fibres[first].state != AT_SHUFFLE) return;
        make_ready(first, last);
    }
}

// Runs a block until it is done, or its threads wait for one that sleeps. Says whether any thread
// came to another place.
static bool run_block(int block, char* shared)
{
    const int n_threads = blockDim.x, start = block * n_threads, end = start + n_threads;
    const int n_warps = (n_threads + LANES - 1) / LANES;
    bool moved = false;
    blockIdx.x = block;
    shared_memory = shared;
    while (!problem && fibres[start].state != DONE) {
        for (int i = 0; i < n_warps && !problem; ++i) {
            const int first = start + (backwards ? n_warps - 1 - i : i) * LANES;
            const int last = first + LANES < end ? first + LANES : end;
            if (!any_is(READY, first, last) && !any_is(ASLEEP, first, last)) continue;
            const bool slept = any_is(ASLEEP, first, last);
            run_warp(first, last);
            if (!slept || !any_is(ASLEEP, first, last)) moved = true;
            // What it waits for may come before its block's other warps have done anything.
            if (!slept && !backwards && any_is(ASLEEP, first, last)) return true;
        }
        if (any_is(ASLEEP, start, end)) return moved;
        if (!problem && !are_together(start, end)) problem = "not all threads reach a barrier";
        if (!problem && fibres[start].state == AT_BARRIER) make_ready(start, end);
    }
    return moved;
}

// Returns what went wrong, or null. `shared` holds the address of each block's shared memory.
extern "C" const char* launch(
    void** arguments_, int n_blocks, int n_threads, void** shared, void* stacks_, int backwards_)
{
    arguments = arguments_;
    stacks = (char*)stacks_;
    backwards = backwards_;
    problem = nullptr;
    blockDim = {(unsigned)n_threads, 1, 1};
    gridDim = {(unsigned)n_blocks, 1, 1};
    for (int i = 0; i < n_blocks * n_threads; ++i) { fibres[i] = Fibre(); }
    bool moved = true;
    while (moved && !problem) {
        moved = false;
        for (int i = 0; i < n_blocks && !problem; ++i) {
            const int block = backwards ? n_blocks - 1 - i : i;
            if (fibres[block * n_threads].state == DONE) continue;
            if (run_block(block, (char*)shared[block])) moved = true;
        }
    }
    if (!problem && any_is(ASLEEP, 0, n_blocks * n_threads)) problem = "blocks wait for ever";
    return problem;
}
