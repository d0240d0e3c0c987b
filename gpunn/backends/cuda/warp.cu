// Sums over the threads of a warp, in a fixed order, by all kernels that have them.

#define WARP 32

// Adds up N numbers of each thread over its warp. At each distance (16, 8, 4, 2, 1) two threads
// share out their numbers: the lower one keeps the first half, the upper one the rest, and each
// gives the other what it does not keep. So the numbers become half as many while the threads that
// they come from become twice as many: 10 numbers take 5 + 3 + 2 + 1 + 1 shuffles, where one after
// the other they would take 5 each. Afterwards a thread has the sums that `index_of_sum` names.
template <int N, int DISTANCE = WARP / 2> static __device__ void add_up_over_warp(T* numbers)
{
    constexpr int half = (N + 1) / 2;
    const bool upper = threadIdx.x & DISTANCE;
#pragma unroll
    for (int i = 0; i < half; ++i) {
        const T second = i + half < N ? numbers[i + half] : T(0);
        const T kept = upper ? second : numbers[i];
        const T given = upper ? numbers[i] : second;
        numbers[i] = kept + __shfl_xor_sync(0xffffffffu, given, DISTANCE);
    }
    if constexpr (DISTANCE > 1) add_up_over_warp<half, DISTANCE / 2>(numbers);
}

// Which of N numbers the thread's number i is the sum of; -1 if of none.
template <int N, int DISTANCE = WARP / 2> static __device__ int index_of_sum(int i)
{
    constexpr int half = (N + 1) / 2;
    int index = i;
    if constexpr (DISTANCE > 1) index = index_of_sum<half, DISTANCE / 2>(i);
    if (index < 0 || index >= half) return -1;
    if (threadIdx.x & DISTANCE) index += half;
    return index < N ? index : -1;
}
