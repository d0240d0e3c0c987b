// A grid of CUDA threads on the host, so that a kernel's own source runs where there is no GPU.
//
// Each thread is a fibre with its own stack; one runs at a time, until it waits or is done. Between
// two barriers one warp goes as far as it can before the next one starts, and one block before the
// next one, in the order of their numbers or backwards: two threads of different warps that touch
// the same memory without a barrier between them do so in either order. Threads that should wait
// together and do not are an error, and so are blocks that wait for ever.
//
// In a cooperative launch all blocks are there at once, and a thread that sleeps waits for another
// block. In any other one nobody may rely on that: a block runs to its end before the next begins.
//
// A shuffle is a place where a warp's threads meet. That it also shows each of them what the others
// have written, as only __syncwarp() promises, is not noticed.
//
// Dynamic shared memory is `shared_memory`: fake_raw.py rewrites its declaration.

#include <ucontext.h>

#define __global__
#define __device__
#define __launch_bounds__(n_threads)
#define __syncthreads() wait_for(AT_BARRIER, __LINE__)
#define __syncwarp() wait_for(AT_WARP_BARRIER, __LINE__)
#define __shfl_sync(mask, value, lane) shuffle<BY_LANE>(mask, value, lane, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) shuffle<BY_XOR>(mask, value, lanes, __LINE__)
#define __shfl_down_sync(mask, value, distance) shuffle<DOWN>(mask, value, distance, __LINE__)
#define __threadfence()
#define __nanosleep(duration) wait_for(ASLEEP, __LINE__)

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a < b ? b : a; }

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

// CUDA's vectors, aligned as CUDA's are.
#define VECTOR_2(vector, number) \
    struct alignas(2 * sizeof(number)) vector { number x, y; }; \
    static inline vector make_##vector(number x, number y) { return {x, y}; }
#define VECTOR_4(vector, number) \
    struct alignas(4 * sizeof(number)) vector { number x, y, z, w; }; \
    static inline vector make_##vector(number x, number y, number z, number w) \
    { return {x, y, z, w}; }
VECTOR_2(float2, float)
VECTOR_4(float4, float)
VECTOR_2(double2, double)
VECTOR_2(uint2, unsigned int)
VECTOR_4(uint4, unsigned int)
VECTOR_2(ushort2, unsigned short)
VECTOR_4(ushort4, unsigned short)

enum { LANES = 32, MOST_FIBRES = 4096, STACK_BYTES = 65536 };  // as in fake_raw.py
enum State { READY, AT_SHUFFLE, AT_WARP_BARRIER, AT_BARRIER, ASLEEP, DONE };
enum Shuffle { NONE, BY_LANE, BY_XOR, DOWN };

// What fake_raw.py passes. A cooperative launch has shared memory for each block, another one for
// one block.
struct Launch {
    void** arguments;
    void** shared;
    void* stacks;
    int grid[3];
    int n_threads, shared_bytes, cooperative, backwards;
};

typedef void* Place[5];

struct Fibre {
    Place here;                     // where it goes on
    bool started;
    State state;
    int line;                       // where it waits
    Shuffle shuffle;                // and for which shuffle
    int n_shuffles;
    unsigned long long offered[2];  // in shuffles, by turns: some threads may be one ahead
};

static Fibre fibres[MOST_FIBRES];
static int current;
static Place scheduler;
static const char* problem;
static void** arguments;
static char* shared_memory;
static char* stacks;
static bool backwards;

static void (*call_kernel)();  // the kernel of this launch

static unsigned atomicAdd(unsigned* address, unsigned value)
{
    const unsigned before = *address;
    *address += value;
    return before;
}

static unsigned atomicInc(unsigned* address, unsigned limit)
{
    const unsigned before = *address;
    *address = before >= limit ? 0 : before + 1;
    return before;
}

// There are none for floating point on purpose: their sums would depend on the order of threads.

// The compiler's own jumps, and without AddressSanitizer: it takes each jump for the end of its stack's
// functions and looks for that stack, which it does not know. That took most of its time.
#define BY_ITSELF __attribute__((noinline, no_sanitize_address))

BY_ITSELF static void jump(Place& place) { __builtin_longjmp(place, 1); }

// A function that is jumped back into must stay one by itself.
BY_ITSELF static void wait_for(State state, int line, Shuffle shuffle = NONE)
{
    Fibre& fibre = fibres[current];
    fibre.state = state;
    fibre.line = line;
    fibre.shuffle = shuffle;
    if (!__builtin_setjmp(fibre.here)) jump(scheduler);
}

// What the compiler calls before a number is read or written at a null or misaligned address, where
// a GPU would stop the kernel.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(
    void*, void* address)
{
    problem = address ? "an address is not aligned for its type" : "a null pointer is used";
    wait_for(DONE, 0);
}

// One thread after the other: that of the next block goes on where the last one's was done.
BY_ITSELF static void run_fibre()
{
    for (;;) {
        call_kernel();
        wait_for(DONE, 0);
    }
}

BY_ITSELF static void go_on(Fibre& fibre)
{
    if (fibre.started) jump(fibre.here);
    fibre.started = true;
    static ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = stacks + (size_t)current * STACK_BYTES;
    start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&start, run_fibre, 0);
    setcontext(&start);
}

BY_ITSELF static void resume(int thread)
{
    current = thread;
    threadIdx.x = thread % blockDim.x;
    if (!__builtin_setjmp(scheduler)) go_on(fibres[thread]);
}

// Returns the lane that a thread takes from.
static unsigned lane_of(Shuffle kind, unsigned lane, unsigned argument)
{
    if (kind == BY_LANE) return argument;
    if (kind == BY_XOR) return lane ^ argument;
    // Beyond the end of the warp a thread gets its own value.
    return lane + argument < LANES ? lane + argument : lane;
}

template <Shuffle KIND, typename V>
static V shuffle(unsigned mask, V value, unsigned argument, int line)
{
    static_assert(sizeof value == 4 || sizeof value == 8, "a shuffle moves 4 or 8 bytes");
    Fibre& fibre = fibres[current];
    const int turn = fibre.n_shuffles++ % 2;
    __builtin_memcpy(&fibre.offered[turn], &value, sizeof value);
    if (mask != 0xffffffffu) problem = "a shuffle leaves out threads of the warp";
    wait_for(AT_SHUFFLE, line, KIND);
    const unsigned lane = threadIdx.x % LANES, from = lane_of(KIND, lane, argument);
    if (from >= LANES || threadIdx.x - lane + from >= blockDim.x) {
        problem = "a shuffle takes from a thread that is not there";
    } else {
        __builtin_memcpy(&value, &fibres[current - lane + from].offered[turn], sizeof value);
    }
    return value;
}

static bool are_together(int first, int last)
{
    for (int i = first; i < last; ++i) {
        const Fibre &one = fibres[i], &other = fibres[first];
        if (one.state != other.state) return false;
        if (one.line != other.line || one.shuffle != other.shuffle) return false;
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
        const State state = fibres[first].state;
        if (state != AT_SHUFFLE && state != AT_WARP_BARRIER) return;
        make_ready(first, last);
    }
}

static void set_block(unsigned block)
{
    blockIdx.x = block % gridDim.x;
    blockIdx.y = block / gridDim.x % gridDim.y;
    blockIdx.z = block / gridDim.x / gridDim.y;
}

// Runs a block, whose first fibre is `start`, until it is done, or its threads wait for one that
// sleeps. Says whether any thread came to another place.
static bool run_block(int block, int start, void* shared)
{
    const int n_threads = blockDim.x, end = start + n_threads;
    const int n_warps = (n_threads + LANES - 1) / LANES;
    bool moved = false;
    set_block(block);
    shared_memory = (char*)shared;
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

// All blocks are there, and each is run as far as it can go, until all are done.
static void run_together(int n_blocks, void** shared)
{
    const int n_threads = blockDim.x;
    bool moved = true;
    while (moved && !problem) {
        moved = false;
        for (int i = 0; i < n_blocks && !problem; ++i) {
            const int block = backwards ? n_blocks - 1 - i : i;
            if (fibres[block * n_threads].state == DONE) continue;
            if (run_block(block, block * n_threads, shared[block])) moved = true;
        }
    }
    if (!problem && any_is(ASLEEP, 0, n_blocks * n_threads)) problem = "blocks wait for ever";
}

// One block is run to its end before the next begins, on the same fibres. What one leaves in shared
// memory the next must not see.
static void run_one_by_one(int n_blocks, void* shared, int shared_bytes)
{
    const int n_threads = blockDim.x;
    for (int i = 0; i < n_blocks && !problem; ++i) {
        __builtin_memset(shared, 0xff, shared_bytes);
        make_ready(0, n_threads);
        while (run_block(backwards ? n_blocks - 1 - i : i, 0, shared) && !problem) {
            if (fibres[0].state == DONE) break;
        }
        if (!problem && any_is(ASLEEP, 0, n_threads)) {
            problem = "a block waits for another, which need not run at once";
        }
    }
}

// Returns what went wrong, or null.
static const char* launch(const Launch* what, void (*kernel)())
{
    call_kernel = kernel;
    arguments = what->arguments;
    stacks = (char*)what->stacks;
    backwards = what->backwards;
    problem = nullptr;
    blockDim = {(unsigned)what->n_threads, 1, 1};
    gridDim = {(unsigned)what->grid[0], (unsigned)what->grid[1], (unsigned)what->grid[2]};
    const int n_blocks = gridDim.x * gridDim.y * gridDim.z;
    const int n_fibres = what->n_threads * (what->cooperative ? n_blocks : 1);
    for (int i = 0; i < n_fibres; ++i) { fibres[i] = Fibre(); }
    if (what->cooperative) run_together(n_blocks, what->shared);
    else run_one_by_one(n_blocks, what->shared[0], what->shared_bytes);
    return problem;
}
