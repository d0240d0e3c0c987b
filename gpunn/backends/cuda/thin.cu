// The two uppermost layers of a network with few outputs, in two passes over the activations.
//
// A step must go over the (n, H) numbers of the last hidden layer twice: to make activations of
// weighted sums, and to make deltas of what comes back. The three products with the few outputs are
// little work, but each would go over all those numbers once more. So they are done in these passes.
// gpunn/backends/cupy_thin.py puts passes.cu in front of this text, and in front of that
//
//     T, which sums are in; S, which activations are kept in; load(S) and store(T) between them
//     hidden_forward(T x), hidden_derivative(T a), top_forward(T x), top_derivative(T a)
//     loss_value(T x, T a, T t, T log_sum), loss_derivative(T a, T t, T t_sum)
//     TOP_IS_SOFTMAX, LOSS_IS_FUSED, DROPOUT: 0 or 1
//     N_OUT: the outputs; ROWS: samples that a block of the way forward takes at a time
//     FORWARD_THREADS, BACK_THREADS: threads of a block
//     FORWARD_PACK, BACK_PACK: neighbouring units of a thread, which it reads and writes at once
//     RULE: how a parameter learns, see UpdateRule in gpunn/backends/fused.py
//
// All sums have a fixed order, so that the same run gives the same bits.

#define N_SUMS (ROWS * N_OUT)

// From a sample's weighted sums to its error; the sums become dE/dz.
static __device__ double go_through_outputs(T* z, const T* target, T share)
{
    double error = 0;
    T log_sum = T(0), t_sum = T(0);
#if TOP_IS_SOFTMAX
    T largest = z[0];
    // Written so that NaN wins, as it does in NumPy's maximum.
    for (int k = 1; k < N_OUT; ++k) { if (!(z[k] <= largest)) largest = z[k]; }
    T total = T(0);
    for (int k = 0; k < N_OUT; ++k) { total += exp(z[k] - largest); }
    log_sum = largest + log(total);
#endif
#if LOSS_IS_FUSED
    for (int k = 0; k < N_OUT; ++k) { t_sum += target[k]; }
#endif
    T mean = T(0);
    for (int k = 0; k < N_OUT; ++k) {
#if TOP_IS_SOFTMAX
        const T a = exp(z[k] - largest) / total;
#else
        const T a = top_forward(z[k]);
#endif
        error += share * loss_value(z[k], a, target[k], log_sum);
        const T d = share * loss_derivative(a, target[k], t_sum);
#if LOSS_IS_FUSED
        z[k] = d;
#elif TOP_IS_SOFTMAX
        mean += d * a;
        z[k] = a;
#else
        z[k] = d * (top_derivative(a));
#endif
    }
#if TOP_IS_SOFTMAX && !LOSS_IS_FUSED
    for (int k = 0; k < N_OUT; ++k) {
        const T a = z[k];
        z[k] = (share * loss_derivative(a, target[k], t_sum) - mean) * a;
    }
#endif
    return error;
}

// Z becomes A, and the samples go through the outputs: their errors, and the output delta.
//
// A block takes ROWS samples through the units of its tile: gridDim.x tiles, gridDim.y groups of
// samples. Of each group, the block that comes last adds up what all have found, in the order of
// the tiles, and goes through the outputs.
//
// Shared memory, in numbers: (number of warps + 1) * N_SUMS, and one more.
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS) gpunn_thin_forward(
    S* z,                       // (n, n_hidden): weighted sums without biases, becomes A
    const T* hidden_biases,     // (n_hidden,), or null
    const T* weights,           // (N_OUT, n_hidden)
    const T* biases,            // (N_OUT,), or null
    const T* targets,           // (n, N_OUT)
    const T* row_weights,       // (n,), or null
    const T* scale,             // (1,): what the output delta is multiplied by
    const unsigned int* key,    // (1,): dropout's, or null
    double* row_losses,         // (n,): each sample's error is added
    T* output_delta,            // (n, N_OUT)
    T* parts,                   // (number of tiles, n, N_OUT): scratch
    unsigned int* arrived,      // (number of groups,): how many blocks have come; 0 before and after
    T share,                    // what an output's error counts
    T kept,                     // the share of the units that does not sit out
    unsigned int limit,         // for dropout
    int n,
    int n_hidden,
    int tile_units)
{
    extern __shared__ double memory[];
    T* of_warps = (T*)memory;                              // (n_warps, N_SUMS)
    T* sums = of_warps + FORWARD_THREADS / WARP * N_SUMS;  // (ROWS, N_OUT)
    unsigned int* is_last = (unsigned int*)(sums + N_SUMS);
    const int me = threadIdx.x, first_row = blockIdx.y * ROWS;
    const int first = blockIdx.x * tile_units, end = min(first + tile_units, n_hidden);

    T sum[N_SUMS];
#pragma unroll
    for (int e = 0; e < N_SUMS; ++e) { sum[e] = T(0); }
    for (int j = first + me * FORWARD_PACK; j < end; j += FORWARD_THREADS * FORWARD_PACK) {
        T a[ROWS][FORWARD_PACK];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const bool is_there = first_row + r < n;
            const size_t place = (size_t)(first_row + r) * n_hidden + j;
            Pack<S, FORWARD_PACK> pack = {};
            if (is_there) pack = *(const Pack<S, FORWARD_PACK>*)(z + place);
#pragma unroll
            for (int u = 0; u < FORWARD_PACK; ++u) {
                const T x = load(pack.at[u]);
                T value = hidden_forward(hidden_biases ? x + hidden_biases[j + u] : x);
#if DROPOUT
                value *= sits_out(place + u, *key, limit) ? T(0) : T(1) / kept;
#endif
                pack.at[u] = store(value);
                // What is learnt from is what was kept, which may be rounded.
                a[r][u] = is_there ? load(pack.at[u]) : T(0);
            }
            if (is_there) *(Pack<S, FORWARD_PACK>*)(z + place) = pack;
        }
        // A row of the weights is read once for all samples of the group.
#pragma unroll
        for (int k = 0; k < N_OUT; ++k) {
            const Pack<T, FORWARD_PACK> w =
                *(const Pack<T, FORWARD_PACK>*)(weights + (size_t)k * n_hidden + j);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int u = 0; u < FORWARD_PACK; ++u) { sum[r * N_OUT + k] += a[r][u] * w.at[u]; }
            }
        }
    }
    add_up_over_warp<N_SUMS>(sum);
#pragma unroll
    for (int i = 0; i < (N_SUMS + WARP - 1) / WARP; ++i) {
        const int index = index_of_sum<N_SUMS>(i);
        if (index >= 0) of_warps[me / WARP * N_SUMS + index] = sum[i];
    }
    __syncthreads();  // each part needs the sums of all warps

    for (int e = me; e < N_SUMS; e += FORWARD_THREADS) {
        T part = T(0);
        for (int w = 0; w < FORWARD_THREADS / WARP; ++w) { part += of_warps[w * N_SUMS + e]; }
        const bool is_there = first_row + e / N_OUT < n;
        if (is_there) parts[((size_t)blockIdx.x * n + first_row) * N_OUT + e] = part;
        __threadfence();  // others see the part before they see that this block has come
    }
    __syncthreads();  // all parts are written
    if (me == 0) {
        const unsigned int before = atomicInc(arrived + blockIdx.y, gridDim.x - 1);
        *is_last = before == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();  // all know whether this block is the last one
    if (!*is_last) return;

    for (int e = me; e < N_SUMS; e += FORWARD_THREADS) {
        if (first_row + e / N_OUT >= n) continue;
        T total = biases ? biases[e % N_OUT] : T(0);
        for (int tile = 0; tile < (int)gridDim.x; ++tile) {
            // Volatile: other blocks have written it, so that it must not come from a cache.
            const volatile T* part = parts + ((size_t)tile * n + first_row) * N_OUT + e;
            total += *part;
        }
        sums[e] = total;
    }
    __syncthreads();  // a sample's sums are all there

    for (int r = me; r < ROWS; r += FORWARD_THREADS) {
        const int i = first_row + r;
        if (i >= n) continue;
        T* row = sums + r * N_OUT;
        const T weight = row_weights ? row_weights[i] : T(1);
        row_losses[i] += weight * go_through_outputs(row, targets + (size_t)i * N_OUT, share);
        for (int k = 0; k < N_OUT; ++k) {
            output_delta[(size_t)i * N_OUT + k] = weight * row[k] * *scale;
        }
    }
}

// From the output delta to the hidden layer's, and the gradients of all that is small.
//
// A thread goes with its units through the samples of a group: gridDim.y groups of `rows` samples.
// Each group has its part of the gradients, one after the other: of the weights (N_OUT, n_hidden),
// of the hidden biases (n_hidden,) and of the outputs' biases (N_OUT,).
//
// Shared memory, in numbers: rows * N_OUT.
extern "C" __global__ void __launch_bounds__(BACK_THREADS) gpunn_thin_back(
    const S* activations,       // (n, n_hidden): A
    const T* weights,           // (N_OUT, n_hidden)
    const T* output_delta,      // (n, N_OUT)
    const unsigned int* key,    // (1,): dropout's, or null
    S* delta,                   // (n, n_hidden): becomes D
    T* parts,                   // (number of groups, N_OUT * n_hidden + n_hidden + N_OUT)
    T kept,
    unsigned int limit,
    int n,
    int n_hidden,
    int rows)
{
    extern __shared__ double memory[];
    T* d = (T*)memory;  // (rows, N_OUT)
    const int me = threadIdx.x, first_row = blockIdx.y * rows, n_rows = min(rows, n - first_row);
    T* part = parts + (size_t)blockIdx.y * ((size_t)(N_OUT + 1) * n_hidden + N_OUT);
    for (int e = me; e < n_rows * N_OUT; e += BACK_THREADS) {
        d[e] = output_delta[(size_t)first_row * N_OUT + e];
    }
    __syncthreads();
    if (blockIdx.x == 0) {
        for (int k = me; k < N_OUT; k += BACK_THREADS) {
            T sum = T(0);
            for (int r = 0; r < n_rows; ++r) { sum += d[r * N_OUT + k]; }
            part[(size_t)(N_OUT + 1) * n_hidden + k] = sum;
        }
    }
    const int j = (blockIdx.x * BACK_THREADS + me) * BACK_PACK;
    if (j >= n_hidden) return;

    T w[N_OUT][BACK_PACK], gradient[N_OUT][BACK_PACK], of_biases[BACK_PACK];
#pragma unroll
    for (int u = 0; u < BACK_PACK; ++u) {
        of_biases[u] = T(0);
#pragma unroll
        for (int k = 0; k < N_OUT; ++k) {
            w[k][u] = weights[(size_t)k * n_hidden + j + u];
            gradient[k][u] = T(0);
        }
    }
#pragma unroll 4
    for (int r = 0; r < n_rows; ++r) {
        const size_t place = (size_t)(first_row + r) * n_hidden + j;
        const Pack<S, BACK_PACK> a = *(const Pack<S, BACK_PACK>*)(activations + place);
        Pack<S, BACK_PACK> out;
#pragma unroll
        for (int u = 0; u < BACK_PACK; ++u) {
            T value = load(a.at[u]), back = T(0);
#pragma unroll
            for (int k = 0; k < N_OUT; ++k) {
                back += d[r * N_OUT + k] * w[k][u];
                gradient[k][u] += d[r * N_OUT + k] * value;
            }
#if DROPOUT
            // The derivative is written from what the activation was before it was scaled.
            value *= kept;
            back *= sits_out(place + u, *key, limit) ? T(0) : T(1) / kept;
#endif
            out.at[u] = store(back * (hidden_derivative(value)));
            of_biases[u] += load(out.at[u]);
        }
        *(Pack<S, BACK_PACK>*)(delta + place) = out;
    }
#pragma unroll
    for (int u = 0; u < BACK_PACK; ++u) {
#pragma unroll
        for (int k = 0; k < N_OUT; ++k) { part[(size_t)k * n_hidden + j + u] = gradient[k][u]; }
        part[(size_t)N_OUT * n_hidden + j + u] = of_biases[u];
    }
}

// All parameters but the wide weights below: a thread adds up the parts of one's gradient.
extern "C" __global__ void __launch_bounds__(256) gpunn_thin_update(
    const T* parts,             // (n_parts, N_OUT * n_hidden + n_hidden + N_OUT)
    const T* numbers,           // those of the step
    T* weights,                 // (N_OUT, n_hidden), and what is remembered of them, or null
    T* weights_first,
    T* weights_second,
    T* hidden_biases,           // (n_hidden,), or null; likewise
    T* hidden_biases_first,
    T* hidden_biases_second,
    T* biases,                  // (N_OUT,), or null; likewise
    T* biases_first,
    T* biases_second,
    int n_parts,
    int n_hidden)
{
    const size_t n_weights = (size_t)N_OUT * n_hidden, n_both = n_weights + n_hidden;
    const size_t n_all = n_both + N_OUT, stride = (size_t)gridDim.x * blockDim.x;
    for (size_t e = (size_t)blockIdx.x * blockDim.x + threadIdx.x; e < n_all; e += stride) {
        T g = T(0);
        for (int part = 0; part < n_parts; ++part) { g += parts[part * n_all + e]; }
        if (e < n_weights) {
            learn(weights, weights_first, weights_second, e, g, numbers, true);
        } else if (e < n_both) {
            if (!hidden_biases) continue;
            learn(
                hidden_biases, hidden_biases_first, hidden_biases_second, e - n_weights, g, numbers,
                false);
        } else if (biases) {
            learn(biases, biases_first, biases_second, e - n_both, g, numbers, false);
        }
    }
}
