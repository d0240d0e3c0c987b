// Exact training on one sample after the other, in one launch for a block of samples.
//
// gpunn/online.py says what is computed and why. Here goes the part that must be done in order: for
// each sample t its correction by the deltas before it, the layer above with its update, and the
// sample's delta. gpunn/cupy_online.py puts the type T and the formulas of the network's
// activations and error in front of this text:
//
//     T hidden_forward(T x), hidden_derivative(T a), top_forward(T x), top_derivative(T a)
//     T loss_value(T x, T a, T t, T log_sum), loss_derivative(T a, T t, T t_sum)
//     TOP_IS_SOFTMAX, LOSS_IS_FUSED, TEXTBOOK_RULE: 0 or 1
//
// One block of threads does it all. A hidden unit belongs to one thread, which alone touches its
// column of z, deltas and weights, so that threads meet only over the few outputs: four times a
// sample. All sums have a fixed order, so that the same run gives the same bits.

#define WARP 32

// The sum over a warp, in its first thread.
static __device__ T sum_of_warp(T value)
{
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, distance);
    }
    return value;
}

#if TOP_IS_SOFTMAX
static __device__ T largest_of(const T* row, int n)
{
    T largest = row[0];
    // Written so that NaN wins, as it does in NumPy's maximum.
    for (int k = 1; k < n; ++k) { if (!(row[k] <= largest)) largest = row[k]; }
    return largest;
}

static __device__ T sum_of_exp(const T* row, int n, T largest)
{
    T total = T(0);
    for (int k = 0; k < n; ++k) { total += exp(row[k] - largest); }
    return total;
}
#endif

static __device__ T sum_of(const T* row, int n)
{
    T total = T(0);
    for (int k = 0; k < n; ++k) { total += row[k]; }
    return total;
}

// Shared memory, in numbers: (number of warps + 5) * n_outputs.
extern "C" __global__ void __launch_bounds__(1024) gpunn_learn_in_order(
    T* z,                    // (n_samples, n_hidden): X W_1^T, becomes A_1
    T* deltas,               // (n_samples, n_hidden): gets D_1
    const T* products,       // (n_samples, n_samples): X X^T, plus 1 where there are biases
    const T* hidden_biases,  // (n_hidden,), or null
    T* weights,              // (n_outputs, n_hidden): changed
    T* biases,               // (n_outputs,), or null: changed
    const T* targets,        // (n_samples, n_outputs)
    double* row_losses,      // (n_samples,): each sample's error is added
    T* outputs,              // (n_samples, n_outputs), or null: gets the outputs
    T rate,
    T share,                 // what an output's error counts
    int n_samples,
    int n_hidden,
    int n_outputs)
{
    extern __shared__ double memory[];
    const int me = threadIdx.x, n_threads = blockDim.x, n_warps = n_threads / WARP;
    T* of_warps = (T*)memory;                 // (n_warps, n_outputs): sums of the warps' units
    T* sums = of_warps + n_warps * n_outputs; // z of the outputs
    T* a_top = sums + n_outputs;              // the outputs
    T* values = a_top + n_outputs;            // each output's share of the error
    T* errors = values + n_outputs;           // what goes back through the weights
    T* steps = errors + n_outputs;            // what the weights learn from: D_2

    for (int t = 0; t < n_samples; ++t) {
        T* a = z + (size_t)t * n_hidden;
        T* delta = deltas + (size_t)t * n_hidden;
        const T* target = targets + (size_t)t * n_outputs;
        const T* product = products + (size_t)t * n_samples;

        for (int j = me; j < n_hidden; j += n_threads) {
            T correction = T(0);
            for (int s = 0; s < t; ++s) {
                correction += product[s] * deltas[(size_t)s * n_hidden + j];
            }
            const T x = hidden_biases ? a[j] + hidden_biases[j] : a[j];
            a[j] = hidden_forward(x - rate * correction);
        }
        for (int k = 0; k < n_outputs; ++k) {
            const T* row = weights + (size_t)k * n_hidden;
            T sum = T(0);
            for (int j = me; j < n_hidden; j += n_threads) { sum += row[j] * a[j]; }
            sum = sum_of_warp(sum);
            if (me % WARP == 0) of_warps[me / WARP * n_outputs + k] = sum;
        }
        __syncthreads();

        for (int k = me; k < n_outputs; k += n_threads) {
            T sum = biases ? biases[k] : T(0);
            for (int w = 0; w < n_warps; ++w) { sum += of_warps[w * n_outputs + k]; }
            sums[k] = sum;
        }
        __syncthreads();

        for (int k = me; k < n_outputs; k += n_threads) {
            const T x = sums[k];
#if TOP_IS_SOFTMAX
            const T largest = largest_of(sums, n_outputs);
            const T total = sum_of_exp(sums, n_outputs, largest);
            const T log_sum = largest + log(total);
            a_top[k] = exp(x - largest) / total;
#else
            const T log_sum = T(0);
            a_top[k] = top_forward(x);
#endif
            values[k] = share * loss_value(x, a_top[k], target[k], log_sum);
            if (outputs) outputs[(size_t)t * n_outputs + k] = a_top[k];
        }
        __syncthreads();

        for (int k = me; k < n_outputs; k += n_threads) {
            const T t_sum = LOSS_IS_FUSED ? sum_of(target, n_outputs) : T(0);
#if TEXTBOOK_RULE
            errors[k] = a_top[k] - target[k];
            steps[k] = errors[k] * top_derivative(a_top[k]);
#else
            T d = share * loss_derivative(a_top[k], target[k], t_sum);
#if TOP_IS_SOFTMAX && !LOSS_IS_FUSED
            T mean = T(0);
            for (int i = 0; i < n_outputs; ++i) {
                mean += share * loss_derivative(a_top[i], target[i], t_sum) * a_top[i];
            }
            d = (d - mean) * a_top[k];
#elif !LOSS_IS_FUSED
            d *= top_derivative(a_top[k]);
#endif
            errors[k] = d;
            steps[k] = d;
#endif
            if (biases) biases[k] -= rate * steps[k];
        }
        if (me == 0) {
            double error = 0;
            for (int k = 0; k < n_outputs; ++k) { error += values[k]; }
            row_losses[t] += error;
        }
        __syncthreads();

        for (int j = me; j < n_hidden; j += n_threads) {
            T back = T(0);
            for (int k = 0; k < n_outputs; ++k) {
                T* weight = weights + (size_t)k * n_hidden + j;
                back += *weight * errors[k];
                *weight -= rate * steps[k] * a[j];
            }
            delta[j] = back * (hidden_derivative(a[j]));
        }
    }
}
