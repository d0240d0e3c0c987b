// Learning from single samples in their order, for networks whose top layer registers do not hold:
// the same as online.cu, with everything in memory. outputs.cu stands in front of this text.
//
// One block of threads does it all. A hidden unit belongs to one thread, which alone touches its
// column of z, deltas and weights, so that threads meet only over the few outputs: four times a
// sample. Shared memory: Outputs.
extern "C" __global__ void __launch_bounds__(1024) gpunn_learn_in_order(
    T* z,                    // (n_samples, n_hidden): X W_1^T, becomes A_1
    T* deltas,               // (n_samples, n_hidden): gets D_1
    const T* products,       // (n_samples, n_samples): X X^T
    const T* hidden_biases,  // (n_hidden,), or null
    T* weights,              // (n_outputs, n_hidden): changed
    T* biases,               // (n_outputs,), or null: changed
    const T* targets,        // (n_samples, n_outputs)
    double* row_losses,      // (n_samples,): each sample's error is added
    T* outputs,              // (n_samples, n_outputs), or null: gets the outputs
    const T* scale_at,       // (1,): what gradients are multiplied by
    T share,                 // what an output's error counts
    int n_samples,
    int n_hidden,
    int n_outputs)
{
    extern __shared__ double memory[];  // double, for the alignment; it holds numbers of type T
    const int me = threadIdx.x, n_threads = blockDim.x;
    const Outputs out = outputs_at((T*)memory, n_outputs);
    const T scale = *scale_at, one = hidden_biases ? 1 : 0;  // the input of the biases

    for (int t = 0; t < n_samples; ++t) {
        T* a = z + (size_t)t * n_hidden;
        T* delta = deltas + (size_t)t * n_hidden;
        const T* target = targets + (size_t)t * n_outputs;
        const T* product = products + (size_t)t * n_samples;

        // Neighbours in a warp have neighbouring units j, so that they read neighbouring places of
        // each row. No barrier: of all deltas a thread reads but the columns that it wrote itself.
        for (int j = me; j < n_hidden; j += n_threads) {
            T correction = T(0);
            for (int s = 0; s < t; ++s) {
                correction += (product[s] + one) * deltas[(size_t)s * n_hidden + j];
            }
            const T x = hidden_biases ? a[j] + hidden_biases[j] : a[j];
            a[j] = hidden_forward(x - scale * correction);
        }
        go_through_outputs(
            a, weights, biases, target, share, row_losses + t, n_hidden, n_outputs, out);
        for (int k = me; k < n_outputs; k += n_threads) {
            if (outputs) outputs[(size_t)t * n_outputs + k] = out.a[k];
            if (biases) biases[k] -= scale * out.steps[k];
        }
        // A weight sends back what it was before its update, and belongs to one thread alone.
        for (int j = me; j < n_hidden; j += n_threads) {
            T back = T(0);
            for (int k = 0; k < n_outputs; ++k) {
                T* weight = weights + (size_t)k * n_hidden + j;
                back += *weight * out.errors[k];
                *weight -= scale * out.steps[k] * a[j];
            }
            delta[j] = back * (hidden_derivative(a[j]));
        }
    }
}
