// What a recorded step begins with: its samples and its numbers, found by the step's own number.
//
// gpunn/backends/cupy_recorder.py puts two types in front of this text: T, which the network
// computes in, and S, in which samples are kept.

// A block for each sample of the step. `step` is the number of the step; the last block to come
// raises it, since all others have read it by then.
extern "C" __global__ void __launch_bounds__(256) gpunn_fetch_step(
    const S* all_inputs,         // (n_samples, n_inputs), or null: they are in `inputs` already
    const T* all_targets,        // (n_samples, n_outputs), or null
    const long long* order,      // (n_samples,): which sample comes at which place, or null
    const T* all_row_weights,    // (n_samples,): by place, or null
    const double* all_numbers,   // (n_steps, n_numbers)
    S* inputs,                   // (batch_size, n_inputs)
    T* targets,                  // (batch_size, n_outputs)
    T* row_weights,              // (batch_size,), or null
    T* numbers,                  // (n_numbers,)
    unsigned int* whole_numbers, // (n_numbers,): the same, for those that are whole
    unsigned int* step,          // (1,)
    unsigned int* arrived,       // (1,): how many blocks have come; 0 before and after
    int batch_size,
    int n_inputs,
    int n_outputs,
    int n_numbers)
{
    const unsigned int at = *step;
    const int me = threadIdx.x, n_threads = blockDim.x, i = blockIdx.x;
    const size_t place = (size_t)at * batch_size + i;
    if (all_inputs) {
        const size_t row = order ? (size_t)order[place] : place;
        for (int k = me; k < n_inputs; k += n_threads) {
            inputs[(size_t)i * n_inputs + k] = all_inputs[row * n_inputs + k];
        }
        for (int k = me; k < n_outputs; k += n_threads) {
            targets[(size_t)i * n_outputs + k] = all_targets[row * n_outputs + k];
        }
    }
    if (all_row_weights && me == 0) row_weights[i] = all_row_weights[place];
    if (i == 0) {
        for (int j = me; j < n_numbers; j += n_threads) {
            const double number = all_numbers[(size_t)at * n_numbers + j];
            numbers[j] = (T)number;
            // Others than those that are whole are of no use here, and may be out of range.
            const bool whole = number >= 0 && number <= 0xffffffffu;
            whole_numbers[j] = whole ? (unsigned int)number : 0u;
        }
    }
    __syncthreads();  // the block's threads have read the number of the step
    if (me == 0) {
        __threadfence();
        // It counts up to the number of blocks, and begins again with the next step.
        if (atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1) *step = at + 1;
    }
}
