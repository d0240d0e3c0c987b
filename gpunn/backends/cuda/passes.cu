// What the passes over the activations of a batch share; see thin.cu and hidden.cu.

// Neighbouring numbers that a thread reads and writes at once.
template <typename V, int N> struct alignas(N * sizeof(V)) Pack { V at[N]; };

// Whether the unit at a place of the activations sits out; as in `Backend.dropout`.
static __device__ bool sits_out(size_t place, unsigned int key, unsigned int limit)
{
    unsigned int h = (unsigned int)place * 0x9E3779B1u + key;
    h ^= h >> 16; h *= 0x85EBCA6Bu;
    h ^= h >> 13; h *= 0xC2B2AE35u;
    h ^= h >> 16;
    return h < limit;
}

// One parameter's step, from its gradient g; `n` are the numbers of the step.
static __device__ void learn(
    T* parameter, T* first_memory, T* second_memory, size_t e, T g, const T* n, bool decays)
{
    T w = parameter[e], m[2];
    m[0] = first_memory ? first_memory[e] : T(0);
    m[1] = second_memory ? second_memory[e] : T(0);
    RULE
    parameter[e] = w;
    if (first_memory) first_memory[e] = m[0];
    if (second_memory) second_memory[e] = m[1];
}
