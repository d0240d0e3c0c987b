// Learning from single samples in their order, a block of them in a launch, one barrier a sample.
//
// gpunn/training/online.py says what is computed and why. Here goes the part that must be done in
// order: for each sample its correction by the deltas before it, the layer above with its update,
// and the sample's delta. gpunn/backends/cupy_kernels.py puts the type T and the network's formulas
// in front of this text, as outputs.cu lists them, and gpunn/backends/cupy_online.py the sizes:
//
//     N_HIDDEN, N_OUTPUTS (at most a warp), N_ROWS (samples in a block, at most)
//     N_THREADS (whole warps), UNITS (hidden units of a thread)
//     GROUP (samples whose weighted sums a thread keeps; a multiple of 4)
//     KEEPS_DELTAS (0 or 1: whether shared memory holds all deltas)
//
// One block of threads does it all. A hidden unit belongs to one thread, which alone touches its
// sums, its deltas and its column of W_2, and which keeps the latter in registers from the first
// sample to the last. Threads meet over the outputs alone: each warp adds up what its units give,
// the block meets, and then each warp works out all outputs by itself, an output a lane. It would
// be wrong if two warps did not get the same bits; so all sums have a fixed order.

#define EVERY_LANE 0xffffffffu
#define N_WARPS (N_THREADS / WARP)
#define BOUNDS N_THREADS, 1  // no other block is wanted beside it: it may have all registers
#define PITCH ((N_ROWS + GROUP - 1) / GROUP * GROUP)  // of a row of products: whole groups

// What is read at once from shared memory.
struct alignas(16) Four { T of[4]; };

static __device__ int lane_of_thread() { return threadIdx.x % WARP; }

// A thread's units are N_THREADS apart, so that a warp reads neighbouring places of a row. The last
// ones may be beyond the layer: at activation 0 and weight 0 they neither say nor learn anything.
static __device__ int unit_at(int u) { return u * N_THREADS + threadIdx.x; }

static __device__ bool is_unit(int u) { return unit_at(u) < N_HIDDEN; }

static __device__ bool has_output() { return lane_of_thread() < N_OUTPUTS; }

// What a thread keeps in registers from the first sample to the last. They have no addresses, so
// all loops over it are unrolled; and so are those over `z`, the units' sums of a group's samples.
struct Kept {
    T weights[UNITS][N_OUTPUTS];  // its units' columns of W_2
    T bias;                       // of the lane's output; every warp has them all
};

// What all threads see, in shared memory but for the last five.
struct Block {
    T* products;     // (PITCH, PITCH): scale (X X^T + one), 0 beyond the samples
    T* deltas;       // (N_ROWS, N_HIDDEN), or nothing
    T* targets;      // (N_ROWS, N_OUTPUTS)
    T* target_sums;  // (N_ROWS,)
    T* z;            // (N_ROWS, N_OUTPUTS): the outputs' weighted sums
    T* a;            // (N_ROWS, N_OUTPUTS): the outputs
    T* log_sums;     // (N_ROWS,): log(sum(exp(z))), of softmax
    T* parts;        // (2, N_WARPS, N_OUTPUTS): a sample's weighted sums over each warp's units
    T* deltas_in_memory;
    T scale, share;
    int n_rows;
    bool has_biases;  // of the outputs
};

static __device__ void place(Block& block, T* memory)
{
    block.products = memory;
    block.deltas = block.products + PITCH * PITCH;
    block.targets = block.deltas + (KEEPS_DELTAS ? N_ROWS * N_HIDDEN : 0);
    block.target_sums = block.targets + N_ROWS * N_OUTPUTS;
    block.z = block.target_sums + N_ROWS;
    block.a = block.z + N_ROWS * N_OUTPUTS;
    block.log_sums = block.a + N_ROWS * N_OUTPUTS;
    block.parts = block.log_sums + N_ROWS;
}

// Brings in what all threads read. The first sample's barrier comes before its first use. `one` is
// the input of the hidden biases, or 0 if there are none.
static __device__ void fetch(const Block& block, const T* products, T one, const T* targets)
{
    const int n_rows = block.n_rows;
    for (int e = threadIdx.x; e < PITCH * PITCH; e += N_THREADS) {
        const int s = e / PITCH, t = e % PITCH;
        const bool is_there = s < n_rows && t < n_rows;
        block.products[e] = is_there ? block.scale * (products[s * n_rows + t] + one) : T(0);
    }
    for (int e = threadIdx.x; e < n_rows * N_OUTPUTS; e += N_THREADS) {
        block.targets[e] = targets[e];
    }
    for (int t = threadIdx.x; t < n_rows; t += N_THREADS) {
        T sum = T(0);
        for (int k = 0; k < N_OUTPUTS; ++k) { sum += targets[t * N_OUTPUTS + k]; }
        block.target_sums[t] = sum;
    }
}

static __device__ void fetch_weights(Kept& kept, const T* weights, const T* biases)
{
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
#pragma unroll
        for (int k = 0; k < N_OUTPUTS; ++k) {
            kept.weights[u][k] = is_unit(u) ? weights[k * N_HIDDEN + unit_at(u)] : T(0);
        }
    }
    kept.bias = biases && has_output() ? biases[lane_of_thread()] : T(0);
}

static __device__ void put_weights(const Kept& kept, T* weights, T* biases)
{
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
        if (!is_unit(u)) continue;
#pragma unroll
        for (int k = 0; k < N_OUTPUTS; ++k) {
            weights[k * N_HIDDEN + unit_at(u)] = kept.weights[u][k];
        }
    }
    if (biases && threadIdx.x < N_OUTPUTS) biases[threadIdx.x] = kept.bias;
}

// Takes from the sums of a group's samples, from number `from` on, what one sample has taught.
static __device__ void correct(
    T (&z)[UNITS][GROUP], const T* products, const T (&delta)[UNITS], int from)
{
#pragma unroll
    for (int t = 0; t < GROUP; t += 4) {
        if (t + 4 <= from) continue;
        const Four product = *(const Four*)(products + t);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (t + i < from) continue;
#pragma unroll
            for (int u = 0; u < UNITS; ++u) { z[u][t + i] -= product.of[i] * delta[u]; }
        }
    }
}

// Gives a thread its units' sums of a group's samples, corrected by the deltas of earlier groups.
// No barrier: of all deltas a thread reads but those that it wrote itself.
static __device__ void begin_group(
    T (&z)[UNITS][GROUP], const Block& block, const T* sums, const T* biases, int first)
{
    const T* deltas = KEEPS_DELTAS ? block.deltas : block.deltas_in_memory;
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
        const T bias = biases && is_unit(u) ? biases[unit_at(u)] : T(0);
#pragma unroll
        for (int t = 0; t < GROUP; ++t) {
            const bool is_there = is_unit(u) && first + t < block.n_rows;
            const size_t place = (size_t)(first + t) * N_HIDDEN + unit_at(u);
            z[u][t] = is_there ? sums[place] + bias : T(0);
        }
    }
#pragma unroll 4
    for (int s = 0; s < first; ++s) {
        T delta[UNITS];
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            delta[u] = is_unit(u) ? deltas[(size_t)s * N_HIDDEN + unit_at(u)] : T(0);
        }
        correct(z, block.products + s * PITCH + first, delta, 0);
    }
}

#if TOP_IS_SOFTMAX
// The sum over the outputs' lanes, in each of them; lanes without an output bring nothing.
// a + b is b + a to the last bit, so that all lanes get the same.
static __device__ T sum_of_outputs(T value)
{
#pragma unroll
    for (int distance = 1; distance < N_OUTPUTS; distance *= 2) {
        value += __shfl_xor_sync(EVERY_LANE, value, distance);
    }
    return value;
}

// The same for the largest. Whichever it is, a NaN shows in the sum of the exponentials.
static __device__ T largest_of_outputs(T value)
{
    const T first = __shfl_sync(EVERY_LANE, value, 0);
    if (!has_output()) value = first;
#pragma unroll
    for (int distance = 1; distance < N_OUTPUTS; distance *= 2) {
        const T other = __shfl_xor_sync(EVERY_LANE, value, distance);
        if (value < other) value = other;
    }
    return value;
}
#endif

// What a lane knows of its output.
struct Output {
    T a;        // the output
    T log_sum;  // of softmax
    T error;    // what goes back through the weights
    T step;     // what the weights learn from: D_2
};

// From a sample's weighted sums, one a lane, to its output delta.
static __device__ Output go_through_outputs(T x, T target, T target_sum, T share)
{
    Output out;
#if TOP_IS_SOFTMAX
    const T largest = largest_of_outputs(x);
    const T power = has_output() ? exp(x - largest) : T(0);
    const T total = sum_of_outputs(power);
    out.log_sum = largest + log(total);
    out.a = power / total;
#else
    out.log_sum = T(0);
    out.a = top_forward(x);
#endif
#if TEXTBOOK_RULE
    out.error = out.a - target;
    out.step = out.error * top_derivative(out.a);
#else
    T d = share * loss_derivative(out.a, target, target_sum);
#if TOP_IS_SOFTMAX && !LOSS_IS_FUSED
    d = (d - sum_of_outputs(has_output() ? d * out.a : T(0))) * out.a;
#elif !LOSS_IS_FUSED
    d *= top_derivative(out.a);
#endif
    out.error = out.step = d;
#endif
    return out;
}

// A sample's weighted sum for each output, in the output's lane of every warp. `parts` belongs to
// this sample: the one before it and the one after it have the other half of block.parts. Who
// writes here again, two samples on, has met all others at the barrier of the sample between, to
// which they came when they had read this sample's. So one barrier a sample is enough.
static __device__ T meet(const Kept& kept, const T (&a)[UNITS], T* parts)
{
    const int lane = lane_of_thread(), mine = index_of_sum<N_OUTPUTS>(0);
    T numbers[N_OUTPUTS];
#pragma unroll
    for (int k = 0; k < N_OUTPUTS; ++k) {
        numbers[k] = T(0);
#pragma unroll
        for (int u = 0; u < UNITS; ++u) { numbers[k] += a[u] * kept.weights[u][k]; }
    }
    add_up_over_warp<N_OUTPUTS>(numbers);
    if (mine >= 0) parts[threadIdx.x / WARP * N_OUTPUTS + mine] = numbers[0];
    __syncthreads();

    T x = kept.bias;
    if (has_output()) {
#pragma unroll
        for (int w = 0; w < N_WARPS; ++w) { x += parts[w * N_OUTPUTS + lane]; }
    }
    return x;
}

// Sends a sample's output errors back to a thread's units, and lets their weights learn. A weight
// sends back what it was before its update.
static __device__ void go_back(
    Kept& kept, T (&back)[UNITS], const T (&a)[UNITS], const Output& out, T scale)
{
#pragma unroll
    for (int u = 0; u < UNITS; ++u) { back[u] = T(0); }
#pragma unroll
    for (int k = 0; k < N_OUTPUTS; ++k) {
        const T error = __shfl_sync(EVERY_LANE, out.error, k);
        const T step = TEXTBOOK_RULE ? __shfl_sync(EVERY_LANE, out.step, k) : error;
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            back[u] += kept.weights[u][k] * error;
            kept.weights[u][k] -= scale * a[u] * step;
        }
    }
}

// Learns from a sample with these activations. `delta` gets its units' deltas.
static __device__ void learn_sample(
    Kept& kept, T (&delta)[UNITS], const T (&a)[UNITS], const Block& block, int row)
{
    const int lane = lane_of_thread();
    const T x = meet(kept, a, block.parts + row % 2 * N_WARPS * N_OUTPUTS);
    const T target = has_output() ? block.targets[row * N_OUTPUTS + lane] : T(0);
    const Output out = go_through_outputs(x, target, block.target_sums[row], block.share);
    if (block.has_biases) kept.bias -= block.scale * out.step;
    if (threadIdx.x < N_OUTPUTS) {
        block.z[row * N_OUTPUTS + lane] = x;
        block.a[row * N_OUTPUTS + lane] = out.a;
        if (lane == 0) block.log_sums[row] = out.log_sum;
    }
    go_back(kept, delta, a, out, block.scale);
#pragma unroll
    for (int u = 0; u < UNITS; ++u) { delta[u] *= (hidden_derivative(a[u])); }
}

// Learns from a group's samples from number FROM on. Not a loop, since `z` has no addresses.
template <int FROM>
static __device__ void learn_group(Kept& kept, T (&z)[UNITS][GROUP], const Block& block, int first)
{
    const int row = first + FROM;
    if (row >= block.n_rows) return;
    T a[UNITS], delta[UNITS];
#pragma unroll
    for (int u = 0; u < UNITS; ++u) { a[u] = is_unit(u) ? hidden_forward(z[u][FROM]) : T(0); }
    learn_sample(kept, delta, a, block, row);
    // The next sample waits for this: what it taught goes to the rest of the group at once.
    correct(z, block.products + row * PITCH + first, delta, FROM + 1);
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
        if (!is_unit(u)) continue;
        block.deltas_in_memory[(size_t)row * N_HIDDEN + unit_at(u)] = delta[u];
        if (KEEPS_DELTAS) block.deltas[row * N_HIDDEN + unit_at(u)] = delta[u];
    }
    if constexpr (FROM + 1 < GROUP) learn_group<FROM + 1>(kept, z, block, first);
}

// The errors, and the outputs if they are wanted, after the last sample.
static __device__ void report(const Block& block, double* row_losses, T* outputs)
{
    __syncthreads();  // the first warp has written all of this
    for (int t = threadIdx.x; t < block.n_rows; t += N_THREADS) {
        double error = 0;
        for (int k = 0; k < N_OUTPUTS; ++k) {
            const int e = t * N_OUTPUTS + k;
            const T log_sum = block.log_sums[t];
            error += block.share * loss_value(block.z[e], block.a[e], block.targets[e], log_sum);
        }
        row_losses[t] += error;
    }
    const int n = outputs ? block.n_rows * N_OUTPUTS : 0;
    for (int e = threadIdx.x; e < n; e += N_THREADS) { outputs[e] = block.a[e]; }
}

extern "C" __global__ void __launch_bounds__(BOUNDS) gpunn_learn_in_registers(
    const T* sums,           // (n_rows, N_HIDDEN): X W_1^T
    T* deltas,               // (n_rows, N_HIDDEN): gets D_1
    const T* products,       // (n_rows, n_rows): X X^T
    const T* hidden_biases,  // (N_HIDDEN,), or null
    T* weights,              // (N_OUTPUTS, N_HIDDEN): changed
    T* biases,               // (N_OUTPUTS,), or null: changed
    const T* targets,        // (n_rows, N_OUTPUTS)
    double* row_losses,      // (n_rows,): each sample's error is added
    T* outputs,              // (n_rows, N_OUTPUTS), or null: gets the outputs
    const T* scale,          // (1,): what gradients are multiplied by
    T share,                 // what an output's error counts
    int n_rows)
{
    extern __shared__ float4 aligned_memory[];  // it holds numbers of type T
    Block block;
    place(block, (T*)aligned_memory);
    block.deltas_in_memory = deltas;
    block.scale = *scale;
    block.share = share;
    block.n_rows = n_rows;
    block.has_biases = biases;
    fetch(block, products, hidden_biases ? T(1) : T(0), targets);
    Kept kept;
    fetch_weights(kept, weights, biases);
    for (int first = 0; first < n_rows; first += GROUP) {
        T z[UNITS][GROUP];
        begin_group(z, block, sums, hidden_biases, first);
        learn_group<0>(kept, z, block, first);
    }
    put_weights(kept, weights, biases);
    report(block, row_losses, outputs);
}
