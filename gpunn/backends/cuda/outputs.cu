// What the kernels share that leave a sample's way through the output layer to a block of threads.
//
// gpunn/backends/cupy_kernels.py puts the type T and the formulas of the network's activations and
// loss in front of this text:
//
//     T hidden_forward(T x), hidden_derivative(T a), top_forward(T x), top_derivative(T a)
//     T loss_value(T x, T a, T t, T log_sum), loss_derivative(T a, T t, T t_sum)
//     TOP_IS_SOFTMAX, LOSS_IS_FUSED, TEXTBOOK_RULE: 0 or 1
//
// All sums have a fixed order, so that the same run gives the same bits.

// The sum over a warp, in its first thread. At each distance (16, 8, 4, 2, 1) a thread adds what
// the one so far above it has come to. What the upper threads come to is of no use.
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

// A sample's way through the output layer, in shared memory: (number of warps + 5) * n_outputs.
struct Outputs {
    T* of_warps;  // (n_warps, n_outputs): sums over the units of a warp's threads
    T* z;         // (n_outputs,): weighted sums
    T* a;         // the outputs
    T* values;    // each output's share of the error
    T* errors;    // what goes back through the weights
    T* steps;     // what the weights learn from: D_2
};

static __device__ Outputs outputs_at(T* memory, int n_outputs)
{
    T* z = memory + blockDim.x / WARP * n_outputs;
    return {memory, z, z + n_outputs, z + 2 * n_outputs, z + 3 * n_outputs, z + 4 * n_outputs};
}

// Outputs whose sums over a warp are taken together.
#define AT_ONCE 8

// From a sample's hidden activations to its error and its output delta, by all threads of a block.
// A thread reads the activations of units threadIdx.x, threadIdx.x + blockDim.x, ... alone.
static __device__ void go_through_outputs(
    const T* hidden, const T* weights, const T* biases, const T* target, T share, double* row_loss,
    int n_hidden, int n_outputs, Outputs out)
{
    const int me = threadIdx.x, n_threads = blockDim.x, n_warps = n_threads / WARP;
    // Several outputs at a time: their sums over the warp then take few shuffles.
    for (int first = 0; first < n_outputs; first += AT_ONCE) {
        T sums[AT_ONCE] = {};
        for (int j = me; j < n_hidden; j += n_threads) {
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                const bool is_there = first + k < n_outputs;
                if (is_there) sums[k] += weights[(size_t)(first + k) * n_hidden + j] * hidden[j];
            }
        }
        add_up_over_warp<AT_ONCE>(sums);
        const int index = index_of_sum<AT_ONCE>(0), k = first + index;
        if (index >= 0 && k < n_outputs) out.of_warps[me / WARP * n_outputs + k] = sums[0];
    }
    __syncthreads();  // each output needs the sums of all warps

    for (int k = me; k < n_outputs; k += n_threads) {
        T sum = biases ? biases[k] : T(0);
        for (int w = 0; w < n_warps; ++w) { sum += out.of_warps[w * n_outputs + k]; }
        out.z[k] = sum;
    }
    __syncthreads();  // softmax needs all z

    for (int k = me; k < n_outputs; k += n_threads) {
        const T x = out.z[k];
#if TOP_IS_SOFTMAX
        const T largest = largest_of(out.z, n_outputs);
        const T total = sum_of_exp(out.z, n_outputs, largest);
        const T log_sum = largest + log(total);
        out.a[k] = exp(x - largest) / total;
#else
        const T log_sum = T(0);
        out.a[k] = top_forward(x);
#endif
        out.values[k] = share * loss_value(x, out.a[k], target[k], log_sum);
    }
    __syncthreads();  // softmax's Jacobian needs all a, and the loss all values

    for (int k = me; k < n_outputs; k += n_threads) {
        const T t_sum = LOSS_IS_FUSED ? sum_of(target, n_outputs) : T(0);
#if TEXTBOOK_RULE
        out.errors[k] = out.a[k] - target[k];
        out.steps[k] = out.errors[k] * top_derivative(out.a[k]);
#else
        T d = share * loss_derivative(out.a[k], target[k], t_sum);
#if TOP_IS_SOFTMAX && !LOSS_IS_FUSED
        T mean = T(0);
        for (int i = 0; i < n_outputs; ++i) {
            mean += share * loss_derivative(out.a[i], target[i], t_sum) * out.a[i];
        }
        d = (d - mean) * out.a[k];
#elif !LOSS_IS_FUSED
        d *= top_derivative(out.a[k]);
#endif
        out.errors[k] = d;
        out.steps[k] = d;
#endif
    }
    if (me == 0) {
        double error = 0;
        for (int k = 0; k < n_outputs; ++k) { error += out.values[k]; }
        *row_loss += error;
    }
    __syncthreads();  // the caller's threads read the errors and steps of all outputs
}
