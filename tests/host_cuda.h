// A block of CUDA threads on the host, so that a kernel's own source runs where there is no GPU.
//
// Each thread is a fibre with its own stack; one runs at a time, until it waits or is done. Between
// two barriers one warp goes as far as it can before the next one starts, in the order of their
// numbers or backwards: two threads of different warps that touch the same memory without a barrier
// between them do so in either order. Threads that should wait together and do not are an error.
//
// Dynamic shared memory is `shared_memory`: host_cupy.py rewrites its declaration.

// The C library's check of jumps takes those to another stack for mistakes.
#undef _FORTIFY_SOURCE
#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __launch_bounds__(n_threads)
#define __syncthreads() wait_for(AT_BARRIER, __LINE__)
#define __shfl_down_sync(mask, value, distance) shuffle_down(mask, value, distance, __LINE__)

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

enum { LANES = 32, MOST_THREADS = 1024, STACK_BYTES = 65536 };  // as in host_cupy.py
enum State { FRESH, AT_SHUFFLE, AT_BARRIER, DONE };

struct Fibre {
    jmp_buf here;                   // where it goes on
    State state;
    int line;                       // where it waits
    int n_shuffles;
    unsigned long long offered[2];  // in shuffles, by turns: some threads may be one ahead
};

static Fibre fibres[MOST_THREADS];
static int current;
static jmp_buf scheduler;
static const char* problem;
static void** arguments;
static char* shared_memory;
static char* stacks;

static void call_kernel();

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
    if (fibre.state != FRESH) _longjmp(fibre.here, 1);
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
    threadIdx.x = thread;
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
    const unsigned source = current % LANES + distance < LANES ? current + distance : current;
    if (source >= blockDim.x) problem = "a shuffle takes from a thread that is not there";
    else __builtin_memcpy(&value, &fibres[source].offered[turn], sizeof value);
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

// Runs threads of a warp until they are all at a barrier, or done.
static void run_warp(int first, int last, bool backwards)
{
    do {
        for (int i = first; i < last; ++i) { resume(backwards ? first + last - 1 - i : i); }
        if (!are_together(first, last)) problem = "threads of a warp wait at different places";
    } while (!problem && fibres[first].state == AT_SHUFFLE);
}

// Returns what went wrong, or null.
extern "C" const char* launch(
    void** arguments_, int n_threads, void* shared_memory_, void* stacks_, int backwards)
{
    arguments = arguments_;
    shared_memory = (char*)shared_memory_;
    stacks = (char*)stacks_;
    problem = nullptr;
    blockDim = {(unsigned)n_threads, 1, 1};
    gridDim = {1, 1, 1};
    for (int i = 0; i < n_threads; ++i) { fibres[i] = Fibre(); }
    const int n_warps = (n_threads + LANES - 1) / LANES;
    do {
        for (int i = 0; i < n_warps && !problem; ++i) {
            const int first = (backwards ? n_warps - 1 - i : i) * LANES;
            run_warp(first, first + LANES < n_threads ? first + LANES : n_threads, backwards);
        }
        if (!problem && !are_together(0, n_threads)) problem = "not all threads reach a barrier";
    } while (!problem && fibres[0].state == AT_BARRIER);
    return problem;
}
