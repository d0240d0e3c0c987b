// A hidden layer with a wide one above: each way is one pass over the (n, n_units) numbers.
//
// gpunn/backends/cupy_hidden.py puts passes.cu in front of this text, and in front of that
//
//     T, which sums are in; S, which activations are kept in; load(S) and store(T) between them
//     hidden_forward(T x), hidden_derivative(T a)
//     N_THREADS: threads of a block
//     DROPOUT: 0 or 1; PACK: neighbouring units of a thread, which it reads and writes at once
//     RULE: how a parameter learns, see UpdateRule in gpunn/backends/fused.py

// Z becomes A. A thread goes with its units through the samples of a group of `rows`.
extern "C" __global__ void __launch_bounds__(N_THREADS) gpunn_hidden_forward(
    S* z,                     // (n, n_units): weighted sums without biases, becomes A
    const T* biases,          // (n_units,), or null
    const unsigned int* key,  // (1,): dropout's, or null
    T kept,                   // the share of the units that does not sit out
    unsigned int limit,       // for dropout
    int n,
    int n_units,
    int rows)
{
    const int j = (blockIdx.x * N_THREADS + threadIdx.x) * PACK;
    if (j >= n_units) return;
    T bias[PACK];
#pragma unroll
    for (int u = 0; u < PACK; ++u) { bias[u] = biases ? biases[j + u] : T(0); }
    const int first = blockIdx.y * rows, end = min(first + rows, n);
#pragma unroll 4
    for (int i = first; i < end; ++i) {
        const size_t place = (size_t)i * n_units + j;
        Pack<S, PACK> pack = *(const Pack<S, PACK>*)(z + place);
#pragma unroll
        for (int u = 0; u < PACK; ++u) {
            T a = hidden_forward(load(pack.at[u]) + bias[u]);
#if DROPOUT
            a *= sits_out(place + u, *key, limit) ? T(0) : T(1) / kept;
#endif
            pack.at[u] = store(a);
        }
        *(Pack<S, PACK>*)(z + place) = pack;
    }
}

// dE/dA becomes D, and each group of `rows` samples has its part of the biases' gradient.
extern "C" __global__ void __launch_bounds__(N_THREADS) gpunn_hidden_back(
    const S* activations,     // (n, n_units): A
    const unsigned int* key,  // (1,): dropout's, or null
    S* delta,                 // (n, n_units): changed
    T* parts,                 // (number of groups, n_units)
    T kept,
    unsigned int limit,
    int n,
    int n_units,
    int rows)
{
    const int j = (blockIdx.x * N_THREADS + threadIdx.x) * PACK;
    if (j >= n_units) return;
    T of_biases[PACK] = {};
    const int first = blockIdx.y * rows, end = min(first + rows, n);
#pragma unroll 4
    for (int i = first; i < end; ++i) {
        const size_t place = (size_t)i * n_units + j;
        const Pack<S, PACK> a = *(const Pack<S, PACK>*)(activations + place);
        Pack<S, PACK> d = *(const Pack<S, PACK>*)(delta + place);
#pragma unroll
        for (int u = 0; u < PACK; ++u) {
            T value = load(a.at[u]), back = load(d.at[u]);
#if DROPOUT
            // The derivative is written from what the activation was before it was scaled.
            value *= kept;
            back *= sits_out(place + u, *key, limit) ? T(0) : T(1) / kept;
#endif
            d.at[u] = store(back * (hidden_derivative(value)));
            of_biases[u] += load(d.at[u]);
        }
        *(Pack<S, PACK>*)(delta + place) = d;
    }
#pragma unroll
    for (int u = 0; u < PACK; ++u) { parts[(size_t)blockIdx.y * n_units + j + u] = of_biases[u]; }
}

// The biases' step: a thread adds up the parts of one's gradient.
extern "C" __global__ void __launch_bounds__(256) gpunn_hidden_update(
    const T* parts,           // (n_parts, n_units)
    const T* numbers,         // those of the step
    T* biases,                // (n_units,), and what is remembered of them, or null
    T* biases_first,
    T* biases_second,
    int n_parts,
    int n_units)
{
    const int stride = gridDim.x * blockDim.x;
    for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < n_units; j += stride) {
        T g = T(0);
        for (int part = 0; part < n_parts; ++part) { g += parts[(size_t)part * n_units + j]; }
        learn(biases, biases_first, biases_second, j, g, numbers, false);
    }
}
