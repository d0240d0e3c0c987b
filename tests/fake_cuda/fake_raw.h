// CUDA's words on the host: what stands before a kernel's source. fake_grid.cpp has the grid.
//
// Dynamic shared memory is `shared_memory`: fake_raw.py rewrites its declaration.

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

typedef __SIZE_TYPE__ size_t;

struct Index { unsigned x, y, z; };
extern Index threadIdx, blockIdx, blockDim, gridDim;
extern char* shared_memory;

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

enum State { READY, AT_SHUFFLE, AT_WARP_BARRIER, AT_BARRIER, ASLEEP, DONE };
enum Shuffle { NONE, BY_LANE, BY_XOR, DOWN };

// Leaves the thread for the others until they, too, are where it waits.
void wait_for(State state, int line, Shuffle shuffle = NONE);

// Takes part in a shuffle: offers a value, and returns what the thread gets.
unsigned long long exchange(
    Shuffle kind, unsigned mask, unsigned long long value, unsigned argument, int line);

// Ends the thread, and the launch with what went wrong.
void stop(const char* what);

template <Shuffle KIND, typename V>
static V shuffle(unsigned mask, V value, unsigned argument, int line)
{
    static_assert(sizeof value == 4 || sizeof value == 8, "a shuffle moves 4 or 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = exchange(KIND, mask, bits, argument, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

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

// What the compiler calls before a number is read or written at a null or misaligned address, where
// a GPU would stop the kernel.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(
    void*, void* address)
{
    stop(address ? "an address is not aligned for its type" : "a null pointer is used");
}
