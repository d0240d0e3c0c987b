// Training of a network with one hidden layer, many steps in one launch.
//
// The formulas and outputs.cu stand in front of this text; see gpunn/backends/cupy_kernels.py.

// The sum over a batch of numbers `stride` apart, by a warp; in its first thread.
static __device__ T sum_of_batch(const T* values, int stride, int batch_size)
{
    T sum = T(0);
    for (int i = threadIdx.x % WARP; i < batch_size; i += WARP) { sum += values[i * stride]; }
    return sum_of_warp(sum);
}

// Waits until all blocks of the grid have come here, and shows each what the others have written.
// `arrived` counts the blocks, from 0 when the launch begins; `n_barriers` is this one's number.
// The count is never set back: before barrier b all blocks have come b times, and a block that runs
// ahead can only make it larger. All blocks must be running, hence the cooperative launch.
static __device__ void wait_for_the_grid(unsigned int* arrived, unsigned int n_barriers)
{
    __syncthreads();  // the block's threads have written what they had to
    if (threadIdx.x == 0) {
        __threadfence();  // and others see it before they see the count
        atomicAdd(arrived, 1u);
        while (*(volatile unsigned int*)arrived < n_barriers * gridDim.x) { __nanosleep(20); }
        __threadfence();  // nothing is read from before the others had come
    }
    __syncthreads();
}

// The part of the first weights that a block has in its shared memory, and what it multiplies.
//
// A row of a tile has an odd number of places: 32 rows then begin in 32 different banks of shared
// memory, and a warp reads a column of them at once.
struct Tile {
    int first_unit, n_units, first_input, n_inputs, pitch;
    T* x;        // (batch_size, pitch): the batch's inputs
    T* weights;  // (n_units, pitch)
    T* rest;     // deltas (batch_size, n_units); between two barriers also the way through a sample
};

// Each thread multiplies for so many samples, or inputs, and so many units at a time: what it reads
// once from shared memory it uses several times.
#define PAIR 2
#define UNITS 4

// Z's part that comes from the tile's inputs: sums[i, j] = sum over its k of x[i, k] w[j, k].
static __device__ void multiply_forward(const Tile& tile, int batch_size, int n_hidden, T* sums)
{
    const int n_pairs = (batch_size + PAIR - 1) / PAIR;
    const int n_groups = (tile.n_units + UNITS - 1) / UNITS;
    for (int task = threadIdx.x; task < n_pairs * n_groups; task += blockDim.x) {
        // The samples of a pair are half a batch apart, and neighbours in a warp have neighbouring
        // samples: with the odd pitch their reads of x[k] hit different banks. Most of them share
        // their units, and a weight is then one read for all.
        const int i = task % n_pairs, i_other = i + n_pairs, j = task / n_pairs * UNITS;
        const bool has_other = i_other < batch_size;
        const T* x = tile.x + i * tile.pitch;
        const T* x_other = has_other ? tile.x + i_other * tile.pitch : x;
        T sum[PAIR][UNITS] = {};
        for (int k = 0; k < tile.n_inputs; ++k) {
#pragma unroll
            for (int u = 0; u < UNITS; ++u) {
                // Beyond the last unit the first one is multiplied again, for nobody, but in range.
                const int unit = j + u < tile.n_units ? j + u : j;
                const T weight = tile.weights[unit * tile.pitch + k];
                sum[0][u] += x[k] * weight;
                sum[1][u] += x_other[k] * weight;
            }
        }
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            if (j + u >= tile.n_units) continue;
            T* out = sums + tile.first_unit + j + u;
            out[(size_t)i * n_hidden] = sum[0][u];
            if (has_other) out[(size_t)i_other * n_hidden] = sum[1][u];
        }
    }
}

// One step of the tile's weights: w[j, k] <- kept w[j, k] - scale sum over i of d[i, j] x[i, k].
static __device__ void learn_tile(const Tile& tile, int batch_size, T scale, T kept)
{
    const int n_pairs = (tile.n_inputs + PAIR - 1) / PAIR;
    const int n_groups = (tile.n_units + UNITS - 1) / UNITS;
    for (int task = threadIdx.x; task < n_pairs * n_groups; task += blockDim.x) {
        const int k = task % n_pairs, k_other = k + n_pairs, j = task / n_pairs * UNITS;
        const bool has_other = k_other < tile.n_inputs;
        T sum[PAIR][UNITS] = {};
        for (int i = 0; i < batch_size; ++i) {
            const T* x = tile.x + i * tile.pitch;
            const T first = x[k], other = has_other ? x[k_other] : T(0);
#pragma unroll
            for (int u = 0; u < UNITS; ++u) {
                const int unit = j + u < tile.n_units ? j + u : j;
                const T delta = tile.rest[i * tile.n_units + unit];
                sum[0][u] += delta * first;
                sum[1][u] += delta * other;
            }
        }
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            if (j + u >= tile.n_units) continue;
            T* weight = tile.weights + (j + u) * tile.pitch;
            weight[k] = kept * weight[k] - scale * sum[0][u];
            if (has_other) weight[k_other] = kept * weight[k_other] - scale * sum[1][u];
        }
    }
}

// Mini-batch after mini-batch, as many steps in a launch as wanted, by all blocks together.
//
// The first weights are cut into tiles of some units and some inputs. A block keeps its tile in its
// shared memory from the first step to the last, so that a step reads no weights but the few of the
// outputs. In a step the blocks meet twice: (1) each tile gives its part of the batch's weighted
// sums; (2) each block takes some samples through the rest of the way forward, and back to their
// D_1; (3) each tile learns from D_1 and its inputs, still in shared memory, and the output layer
// is shared out among all warps. A block without a tile only takes part in (2) and in the latter.
//
// Shared memory, in numbers: (batch_size + tile_units) * (tile_inputs | 1), and the larger of
// batch_size * tile_units and n_hidden + Outputs.
extern "C" __global__ void __launch_bounds__(256) gpunn_learn_batches(
    const T* inputs,        // (n_steps * batch_size, n_inputs)
    const T* targets,       // (n_steps * batch_size, n_outputs)
    double* row_losses,     // (n_steps * batch_size,): each sample's error is added
    T* hidden_weights,      // (n_hidden, n_inputs): changed
    T* hidden_biases,       // (n_hidden,), or null: changed
    T* weights,             // (n_outputs, n_hidden): changed
    T* biases,              // (n_outputs,), or null: changed
    T* sums,                // (n_input_tiles, batch_size, n_hidden): scratch, as are the next ones
    T* activations,         // (batch_size, n_hidden): A_1
    T* deltas,              // (batch_size, n_hidden): D_1
    T* steps,               // (batch_size, n_outputs): D_2
    unsigned int* arrived,  // (1,): 0
    T scale,                // the learning rate over the samples in a step
    T kept,                 // what the weights are multiplied by in a step
    T share,                // what an output's error counts
    int n_steps,
    int batch_size,
    int n_inputs,
    int n_hidden,
    int n_outputs,
    int tile_units,
    int tile_inputs)
{
    extern __shared__ double memory[];
    const int me = threadIdx.x, n_threads = blockDim.x;
    const int lane = me % WARP, n_warps = n_threads / WARP;
    const int n_input_tiles = (n_inputs + tile_inputs - 1) / tile_inputs;
    const int input_tile = blockIdx.x % n_input_tiles;

    Tile tile;
    tile.first_unit = blockIdx.x / n_input_tiles * tile_units;
    tile.n_units = max(0, min(tile_units, n_hidden - tile.first_unit));
    tile.first_input = input_tile * tile_inputs;
    tile.n_inputs = min(tile_inputs, n_inputs - tile.first_input);
    tile.pitch = tile_inputs | 1;  // the next odd number
    tile.x = (T*)memory;
    tile.weights = tile.x + batch_size * tile.pitch;
    tile.rest = tile.weights + tile_units * tile.pitch;
    T* hidden = tile.rest;  // of the sample whose turn it is; the deltas come after its last use
    const Outputs out = outputs_at(hidden + n_hidden, n_outputs);
    const int tile_size = tile.n_units * tile.n_inputs;
    T* tile_in_memory = hidden_weights + (size_t)tile.first_unit * n_inputs + tile.first_input;
    unsigned int n_barriers = 0;

    for (int e = me; e < tile_size; e += n_threads) {
        const int j = e / tile.n_inputs, k = e % tile.n_inputs;
        tile.weights[j * tile.pitch + k] = tile_in_memory[(size_t)j * n_inputs + k];
    }
    for (int step = 0; step < n_steps; ++step) {
        const size_t first = (size_t)step * batch_size;
        const T* batch = inputs + first * n_inputs + tile.first_input;

        if (tile.n_units > 0) {
            for (int e = me; e < batch_size * tile.n_inputs; e += n_threads) {
                const int i = e / tile.n_inputs, k = e % tile.n_inputs;
                tile.x[i * tile.pitch + k] = batch[(size_t)i * n_inputs + k];
            }
        }
        __syncthreads();  // in the first step this waits for the weights, too
        multiply_forward(
            tile, batch_size, n_hidden, sums + (size_t)input_tile * batch_size * n_hidden);
        wait_for_the_grid(arrived, ++n_barriers);
        // From here on the output layer and the hidden biases are those after the last step: who
        // changed them has come to this barrier, and who changes them next waits for the other.

        for (int i = blockIdx.x; i < batch_size; i += gridDim.x) {
            for (int j = me; j < n_hidden; j += n_threads) {
                T z = hidden_biases ? hidden_biases[j] : T(0);
                for (int part = 0; part < n_input_tiles; ++part) {
                    z += sums[((size_t)part * batch_size + i) * n_hidden + j];
                }
                hidden[j] = hidden_forward(z);
                activations[(size_t)i * n_hidden + j] = hidden[j];
            }
            go_through_outputs(
                hidden, weights, biases, targets + (first + i) * n_outputs, share,
                row_losses + first + i, n_hidden, n_outputs, out);
            for (int k = me; k < n_outputs; k += n_threads) {
                steps[(size_t)i * n_outputs + k] = out.steps[k];
            }
            for (int j = me; j < n_hidden; j += n_threads) {
                T back = T(0);
                for (int k = 0; k < n_outputs; ++k) {
                    back += weights[(size_t)k * n_hidden + j] * out.errors[k];
                }
                deltas[(size_t)i * n_hidden + j] = back * (hidden_derivative(hidden[j]));
            }
        }
        wait_for_the_grid(arrived, ++n_barriers);

        for (int e = me; e < batch_size * tile.n_units; e += n_threads) {
            const int i = e / tile.n_units, j = e % tile.n_units;
            tile.rest[e] = deltas[(size_t)i * n_hidden + tile.first_unit + j];
        }
        __syncthreads();  // each thread learns from deltas that others have fetched
        learn_tile(tile, batch_size, scale, kept);
        // Several tiles have the same units, and one of them must change the biases.
        if (hidden_biases && input_tile == 0) {
            for (int j = me / WARP; j < tile.n_units; j += n_warps) {
                const T sum = sum_of_batch(tile.rest + j, tile.n_units, batch_size);
                if (lane == 0) hidden_biases[tile.first_unit + j] -= scale * sum;
            }
        }
        const int n_weights = n_outputs * n_hidden;
        for (int e = blockIdx.x * n_warps + me / WARP; e < n_weights; e += gridDim.x * n_warps) {
            const int k = e / n_hidden, j = e % n_hidden;
            T sum = T(0);
            for (int i = lane; i < batch_size; i += WARP) {
                sum += steps[(size_t)i * n_outputs + k] * activations[(size_t)i * n_hidden + j];
            }
            sum = sum_of_warp(sum);
            if (lane == 0) weights[e] = kept * weights[e] - scale * sum;
        }
        if (biases && blockIdx.x == gridDim.x - 1) {
            for (int k = me / WARP; k < n_outputs; k += n_warps) {
                const T sum = sum_of_batch(steps + k, n_outputs, batch_size);
                if (lane == 0) biases[k] -= scale * sum;
            }
        }
        __syncthreads();  // the next step overwrites x
    }
    for (int e = me; e < tile_size; e += n_threads) {
        const int j = e / tile.n_inputs, k = e % tile.n_inputs;
        tile_in_memory[(size_t)j * n_inputs + k] = tile.weights[j * tile.pitch + k];
    }
}
