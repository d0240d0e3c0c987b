"""Whole kernels of the double of CuPy: what their threads may do, and what is noticed."""

from typing import Any

import numpy as np
import pytest
from fake_cuda import cupy
from trying import needs_compiler, ones


def launch(body: str, *arguments: Any, n: int = 64, shared: int = 0, grid: int = 1) -> None:
    """Launch a kernel of x, y and n."""
    code = f"""
    typedef float T;
    extern "C" __global__ void __launch_bounds__(1024) tried(const T* x, T* y, int n) {{
        extern __shared__ T memory[];
        const int me = threadIdx.x;
        {body}
    }}"""
    module = cupy.RawModule(
        code=code, options=("--std=c++17",), enable_cooperative_groups=grid != 1
    )
    module.get_function("tried")((grid,), (n,), arguments, shared_mem=shared)


def launch_on(body: str, n: int = 64, **options: int) -> Any:
    """Launch a kernel on x = 0, 1, ... and return its y."""
    x, y = cupy.asarray(np.arange(n, dtype="float32")), ones(n)
    launch(body, x, y, np.int32(n), n=n, **options)
    return y.get()


@needs_compiler
def test_threads_meet_at_barriers() -> None:
    for n in (1, 31, 32, 33, 64, 1024):
        body = "memory[me] = x[me]; __syncthreads(); y[me] = memory[n - 1 - me];"
        np.testing.assert_array_equal(launch_on(body, n, shared=4 * n), np.arange(n)[::-1])


@needs_compiler
def test_threads_of_a_warp_shuffle() -> None:
    for distance in (0, 1, 16, 31):
        body = f"y[me] = __shfl_down_sync(0xffffffffu, x[me], {distance});"
        lanes = np.arange(64)
        expected = np.where(lanes % 32 + distance < 32, lanes + distance, lanes)
        np.testing.assert_array_equal(launch_on(body), expected)
    body = """
        T sum = x[me];
        for (int d = 16; d > 0; d /= 2) { sum += __shfl_down_sync(0xffffffffu, sum, d); }
        y[me] = sum;"""
    np.testing.assert_array_equal(launch_on(body)[::32], [sum(range(32)), sum(range(32, 64))])


@needs_compiler
def test_shared_memory_is_nan_at_first() -> None:
    assert np.isnan(launch_on("y[me] = memory[me];", shared=256)).all()


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("memory[me] = x[me]; y[me] = memory[n - 1 - me];", "depends on the order of the threads"),
        ("memory[me] = x[me]; y[me] = memory[me ^ 1];", "depends on the order of the threads"),
        ("if (me == 0) y[0] = 2; y[me] += y[0];", "depends on the order of the threads"),
        ("if (me < 32) __syncthreads();", "not all threads reach a barrier"),
        ("if (me < 32) __syncthreads(); else {\n__syncthreads(); }", "not all threads reach"),
        ("if (me % 2) __syncthreads();", "threads of a warp wait at different places"),
        ("if (me == 3) return; __syncthreads();", "threads of a warp wait at different places"),
        ("__shfl_down_sync(0xffffu, x[me], 1);", "leaves out threads of the warp"),
        ("if (me) __shfl_down_sync(0xffffffffu, x[me], 1);", "threads of a warp wait at different"),
    ],
)
def test_threads_that_race_or_part_are_noticed(body: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch_on(body, shared=256)


# Blocks that meet.

NOTHING = 'extern "C" __global__ void tried(int n) {}'
MEET = """
    __syncthreads();
    if (me == 0) {
        atomicAdd((unsigned*)y, 1u);
        while (*(volatile unsigned*)y < %s) { __nanosleep(20); }
    }
    __syncthreads();
"""


def launch_blocks(body: str) -> Any:
    """Launch five blocks of 64 threads; return y[1:], which begins as ones."""
    y = cupy.asarray(np.concatenate([np.zeros(1, "float32"), np.ones(5 * 64, "float32")]))
    launch(f"const int all = blockIdx.x * 64 + me; {body}", ones(1), y, np.int32(0), grid=5)
    return y.get()[1:]


@needs_compiler
def test_blocks_meet() -> None:
    body = f"y[1 + all] = all; {MEET % 5} const T other = y[1 + 319 - all]; {MEET % 10}"
    np.testing.assert_array_equal(
        launch_blocks(f"{body} y[1 + all] = other;"), np.arange(320)[::-1]
    )


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[1 + 319 - all] = y[1 + all] + all;", "depends on the order of the threads"),
        (f"y[1 + all] = all; {MEET % 5} y[1 + all] = y[1 + 319 - all];", "depends on the order"),
        (
            f"y[1 + all] = all; {(MEET % 5).replace('__syncthreads();', '', 1)}"
            f"const T other = y[1 + 319 - all]; {MEET % 10} y[1 + all] = other;",
            "depends on the order",
        ),
        (MEET % 6, "blocks wait for ever"),
        (f"if (blockIdx.x != 3) {{ {MEET % 5} }}", "blocks wait for ever"),
        (f"if (me < 32) {{ {MEET % 5} }}", "not all threads reach a barrier"),
    ],
)
def test_blocks_that_race_or_part_are_noticed(body: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch_blocks(body)


@needs_compiler
def test_each_block_has_shared_memory_of_its_own() -> None:
    y = ones(5 * 64)
    body = "memory[me] = blockIdx.x; __syncthreads(); y[blockIdx.x * 64 + me] = memory[63 - me];"
    launch(body, ones(1), y, np.int32(0), shared=256, grid=5)
    np.testing.assert_array_equal(y.get(), np.repeat(np.arange(5), 64))


@needs_compiler
def test_a_shuffle_from_a_thread_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="takes from a thread that is not there"):
        launch_on("__shfl_down_sync(0xffffffffu, x[me], 1);", 33)


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[n + me] = 0;", "tried wrote outside of y"),
        ("y[me - 1] = 0;", "tried wrote outside of y"),
        ("memory[me + 1] = 0;", "tried wrote outside of its shared memory"),
        ("((T*)x)[-1] = 0;", "tried wrote outside of x"),
    ],
)
def test_writing_outside_is_noticed(body: str, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        launch_on(body, shared=256)


@needs_compiler
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": np.ones(8, "float32")}, TypeError, "x must be int64"),
        ({"x": None}, TypeError, "x must be int64, got None"),
        ({"x": np.intp(4096)}, TypeError, "x is an address that no array has"),
        ({"y": ones(8, dtype="float64")}, TypeError, "y must be float32, got float64"),
        ({"x": ones(4, 4).T}, ValueError, "x is not contiguous"),
        ({"n": 8}, TypeError, "n must be int32, got 8"),
        ({"n": np.int64(8)}, TypeError, "n must be int32"),
        ({"n": ones(1)}, TypeError, "n must be int32"),
    ],
)
def test_whole_kernels_refuse_arguments(
    change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments = {"x": ones(8), "y": ones(8), "n": np.int32(8), **change}
    with pytest.raises(kind, match=message):
        launch("", *arguments.values())


@needs_compiler
def test_whole_kernels_take_null() -> None:
    y = ones(8)
    launch("if (!x && me < n) y[me] = 2;", np.intp(0), y, np.int32(8))
    assert (y.get() == 2).all()


@needs_compiler
def test_whole_kernels_refuse_what_overlaps_or_lies_elsewhere() -> None:
    array = ones(8)
    with pytest.raises(ValueError, match="x and y overlap, which is a race on a GPU"):
        launch("", array[:5], array[4:], np.int32(4))
    launch("", array[:4], array[4:], np.int32(4))
    with (
        cupy.cuda.Device(1),
        pytest.raises(ValueError, match="different from the current device"),
    ):
        launch("", array[:4], array[4:], np.int32(4))


@needs_compiler
def test_whole_kernels_refuse_what_does_not_fit() -> None:
    with pytest.raises(TypeError, match="tried takes 3 arguments, got 1"):
        launch("", np.int32(1))
    for options in ({"n": 1025}, {"n": 0}, {"shared": 48 * 1024 + 1}):
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
            launch("", ones(1), ones(1), np.int32(1), **options)
    with pytest.raises(RuntimeError, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
        launch("", ones(1), ones(1), np.int32(1), grid=7)
    alone = cupy.RawModule(code=NOTHING).get_function("tried")
    for grid in ((0,), (1, 2**16), (1, 1, 2**16), (2**31,)):
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
            alone(grid, (32,), (np.int32(0),))
    with pytest.raises(NotImplementedError, match="more than one dimension"):
        alone((1,), (32, 2), (np.int32(0),))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        alone.max_dynamic_shared_size_bytes = 227 * 1024 + 1
    alone.max_dynamic_shared_size_bytes = 100_000
    alone((1,), (32,), (np.int32(0),), shared_mem=100_000)
    with pytest.raises(NotImplementedError, match="options"):
        cupy.RawModule(code="", options=("--device-debug",))
    with pytest.raises(RuntimeError, match="CUDA_ERROR_NOT_FOUND"):
        cupy.RawModule(code="").get_function("tried")


# Blocks that do not meet, of grids of one to three dimensions.


def launch_grid(body: str, grid: tuple[int, ...], n: int = 32, shared: int = 0) -> Any:
    """Launch blocks that run one after the other, and count what they count; return y."""
    code = f"""
    extern "C" __global__ void tried(float* y, unsigned int* count) {{
        extern __shared__ float memory[];
        const int me = threadIdx.x, n = blockDim.x;
        const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        {body}
    }}"""
    y, count = ones(n * int(np.prod(grid))), cupy.zeros(1, "uint32")
    kernel = cupy.RawModule(code=code).get_function("tried")
    kernel(grid, (n, 1, 1), (y, count), shared_mem=shared)
    return y.get().reshape(*grid[::-1], n)


@needs_compiler
def test_grids_of_three_dimensions() -> None:
    body = "y[block * n + me] = 100 * blockIdx.z + 10 * blockIdx.y + blockIdx.x;"
    for grid in ((5,), (4, 3), (2, 3, 4), (40, 5, 1)):
        z, y, x = np.indices((*grid, 1, 1)[2::-1])
        expected = np.repeat(100 * z + 10 * y + x, 32).reshape(*grid[::-1], 32)
        np.testing.assert_array_equal(launch_grid(body, grid), expected)


@needs_compiler
def test_each_block_of_many_begins_with_nan() -> None:
    """Though the blocks use the same fibres and the same memory, one after the other."""
    body = """
        y[block * n + me] = memory[me];
        memory[me] = block;
        __syncthreads();
        if (memory[n - 1 - me] != block) y[block * n + me] = 0;"""
    assert np.isnan(launch_grid(body, (300, 2), shared=128)).all()


@needs_compiler
def test_the_last_block_adds_up() -> None:
    """Whichever block comes last, it sees what all have written, and the order stays the same."""
    body = """
        if (me) return;
        y[block * n] = block;
        __threadfence();
        if (atomicInc(count, gridDim.x - 1) != gridDim.x - 1) return;
        float sum = 0;
        for (int i = 0; i < gridDim.x; ++i) { sum += y[i * n]; }
        y[1] = sum;"""
    assert launch_grid(body, (100,))[0, 1] == 99 * 50


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[me] = block;", "depends on the order of the threads"),
        ("y[block * n + me] = block ? y[me] : 5;", "depends on the order of the threads"),
        ("if (me == 0) y[block] = atomicAdd(count, 1u);", "depends on the order of the threads"),
        (
            "atomicAdd(count, 1u); while (*(volatile unsigned*)count < 2 * n) __nanosleep(20);",
            "a block waits for another, which need not run at once",
        ),
        ("if (block == 1 && me % 2) __syncthreads();", "threads of a warp wait at different"),
        ("memory[me] = me; y[block * n + me] = memory[me ^ 1];", "depends on the order"),
    ],
)
def test_blocks_that_rely_on_each_other_are_noticed(body: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch_grid(body, (2, 1), shared=128)


@needs_compiler
def test_writing_outside_of_a_blocks_shared_memory() -> None:
    with pytest.raises(IndexError, match="outside of its shared memory"):
        launch_grid("if (block == 1) memory[me + 1] = 0;", (3,), shared=128)


@needs_compiler
def test_a_count_that_begins_again() -> None:
    body = """
        unsigned count = 0;
        if (me == 0) { for (int i = 0; i < 8; ++i) { y[i] = atomicInc(&count, 2u); } }"""
    assert launch_on(body)[:8].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


# Shuffles within a warp, and its own barrier.


@needs_compiler
def test_shuffles_by_lane_and_by_xor() -> None:
    lanes, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    for mask in (0, 1, 16, 31):
        body = f"y[me] = __shfl_xor_sync(0xffffffffu, x[me], {mask});"
        np.testing.assert_array_equal(launch_on(body), warp + (lanes ^ mask))
    body = "y[me] = __shfl_sync(0xffffffffu, (double)x[me], (me * 7 + 3) % 32);"
    np.testing.assert_array_equal(launch_on(body), warp + (np.arange(64) * 7 + 3) % 32)


@needs_compiler
def test_shuffles_in_instantiations_of_one_template() -> None:
    """Their line is the same, and they still are one after the other."""
    code = """
    template <int N> struct Sum {
        static __device__ float of(float v) {
            v += __shfl_xor_sync(0xffffffffu, v, N);
            return Sum<N / 2>::of(v);
        }
    };
    template <> struct Sum<0> { static __device__ float of(float v) { return v; } };
    extern "C" __global__ void tried(const float* x, float* y) {
        y[threadIdx.x] = Sum<16>::of(x[threadIdx.x]);
    }"""
    x, y = cupy.asarray(np.arange(64, dtype="float32")), ones(64)
    cupy.RawModule(code=code).get_function("tried")((1,), (64,), (x, y))
    np.testing.assert_array_equal(y.get(), np.repeat([496, 1520], 32))


@needs_compiler
def test_the_barrier_of_a_warp() -> None:
    body = "memory[me] = x[me]; __syncwarp(); y[me] = memory[me ^ 1];"
    np.testing.assert_array_equal(launch_on(body, shared=256), np.arange(64) ^ 1)


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("__shfl_xor_sync(0xffffu, x[me], 1);", "leaves out threads of the warp"),
        ("__shfl_sync(0xffffu, x[me], 1);", "leaves out threads of the warp"),
        ("if (me < 32) __shfl_sync(~0u, x[me], 32);", "takes from a thread that is not there"),
        ("__shfl_sync(0xffffffffu, x[me], -1);", "takes from a thread that is not there"),
        ("if (me < 32) __shfl_xor_sync(~0u, x[me], 32);", "takes from a thread that is not there"),
        ("if (me) __shfl_xor_sync(0xffffffffu, x[me], 1);", "threads of a warp wait at different"),
        ("if (me % 2) __syncwarp();", "threads of a warp wait at different places"),
        (
            "if (me % 2) __shfl_sync(~0u, x[me], 1); else __shfl_xor_sync(~0u, x[me], 1);",
            "threads of a warp wait at different places",
        ),
        ("memory[me] = x[me]; __syncwarp(); y[me] = memory[n - 1 - me];", "depends on the order"),
        ("struct { char c[2]; } v; __shfl_sync(~0u, v, 1);", "a shuffle moves 4 or 8 bytes"),
    ],
)
def test_warps_that_part_are_noticed(body: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch_on(body, shared=256)


# What kernels are written in.


@needs_compiler
def test_vectors() -> None:
    body = """
        const float4* rows = (const float4*)x;
        if (me < n / 4) ((float4*)y)[me] = make_float4(rows[me].w, rows[me].z, rows[me].y, me);"""
    expected = np.arange(64).reshape(-1, 4)[:, ::-1].copy()
    expected[:, 3] = np.arange(16)
    np.testing.assert_array_equal(launch_on(body).reshape(-1, 4), expected)
    sizes = "y[0] = sizeof(float2); y[1] = sizeof(double2); y[2] = sizeof(uint2);"
    sizes += "y[3] = sizeof(uint4); y[4] = sizeof(ushort2); y[5] = sizeof(ushort4);"
    sizes += "y[6] = alignof(float4); y[7] = alignof(ushort4);"
    assert launch_on(f"if (me == 0) {{ {sizes} }}")[:8].tolist() == [8, 16, 8, 16, 4, 8, 16, 8]


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[me] = ((const float4*)(x + 1))->x;", "an address is not aligned for its type"),
        ("*(float4*)(y + 2) = make_float4(0, 0, 0, 0);", "an address is not aligned for its type"),
        ("((float2*)(memory + 1))->x = 0;", "an address is not aligned for its type"),
        ("y[me] = *(const double*)(x + 1);", "an address is not aligned for its type"),
        ("const T* none = n ? nullptr : x; y[me] = *none;", "a null pointer is used"),
    ],
)
def test_addresses_must_be_aligned(body: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        launch_on(body, shared=256)


@needs_compiler
@pytest.mark.parametrize(
    "body",
    [
        "atomicAdd(y, 1.0f);",
        "atomicAdd((double*)y, 1.0);",
        "atomicInc((float*)y, 1u);",
        "y[me] = __ldg(x + me);",
        "y[me] = __expf(x[me]);",
    ],
)
def test_what_the_double_does_not_offer_does_not_compile(body: str) -> None:
    with pytest.raises(RuntimeError, match="does not compile"):
        launch_on(body)


SIZED = """
#define WIDTH 3
#define HALVES 1
#if HALVES
typedef unsigned short S;   // bits of a shorter number
#else
typedef float S;
#endif
/* A number of its own. */
template <int N> struct Power {
    static __device__ double of(double x) { return pow(x, (double)N); }
};
extern "C" __global__ void __launch_bounds__(32) tried(
    const S* __restrict__ x,
    unsigned int* y,  // counted
    unsigned short* z)
{
    extern __shared__ float4 memory[];
    memory[threadIdx.x] = make_float4(x[threadIdx.x], 0, 0, 0);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) { sum += memory[threadIdx.x].x; }
    y[threadIdx.x] = sum;
    z[threadIdx.x] = Power<2>::of(x[threadIdx.x]);
}
"""


@needs_compiler
def test_sizes_and_types_are_compiled_in() -> None:
    numbers = np.arange(32, dtype="uint16")
    x, y, z = cupy.asarray(numbers), cupy.zeros(32, "uint32"), cupy.zeros(32, "uint16")
    tried = cupy.RawModule(code=SIZED).get_function("tried")
    tried((1,), (32,), (x, y, z), shared_mem=512)
    np.testing.assert_array_equal(y.get(), 3 * numbers)
    np.testing.assert_array_equal(z.get(), numbers**2)
    other = cupy.RawModule(code=SIZED.replace("HALVES 1", "HALVES 0")).get_function("tried")
    with pytest.raises(TypeError, match="x must be float32, got uint16"):
        other((1,), (32,), (x, y, z), shared_mem=512)


@needs_compiler
def test_static_shared_memory_is_refused() -> None:
    with pytest.raises(RuntimeError, match="use dynamic shared memory"):
        launch_on("__shared__ T mine[32]; mine[me % 32] = x[me];")
    launch_on("// no __shared__ T mine[32] here\n/* nor __shared__ */ y[me] = x[me];")
