"""The fused loops of the CPU: what the tests of all devices do not ask of them.

`test_backend.py` holds each of them against a float64 oracle, as it does every device. Here it is
asked whether they are used at all, what they do with numbers at the edges, what they leave to
NumPy, and whether threads change anything.
"""

import sys
import threading

import numpy as np
import pytest
import scipy.sparse
from conftest import make_backend

from gpunn.activations import ACTIVATIONS, EXP, IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation
from gpunn.backends import numba_layout, numpy_pieces
from gpunn.backends.base import AdamStep, Backend
from gpunn.backends.numba_library import Library
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.numpy_blas import blas_libraries
from gpunn.backends.sparse_rows import SparseRows
from gpunn.errors import ShapeError
from gpunn.losses import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    BINARY_LOG_LOSS,
    CROSS_ENTROPY,
    LOG_LOSS,
    MEAN_SQUARED_ERROR,
    SQUARED_ERROR,
    SUM_OF_SQUARES,
)

ELEMENTWISE = (SIGMOID, TANH, RELU, IDENTITY, EXP)
OUTPUTS = [
    *((SOFTMAX, loss) for loss in (CROSS_ENTROPY, LOG_LOSS)),
    *((SIGMOID, loss) for loss in (BINARY_CROSS_ENTROPY, BINARY_LOG_LOSS)),
    *(
        (activation, loss)
        for activation in (SIGMOID, IDENTITY)
        for loss in (SQUARED_ERROR, SUM_OF_SQUARES, MEAN_SQUARED_ERROR, ABSOLUTE_ERROR)
    ),
]
STEP = AdamStep(1e-3, 0.9, 0.999, 1e-8, 0.0)
LONG = numpy_pieces.WORTH_SHARING * numpy_pieces.PIECE + 37
"""Numbers enough for all threads, and no whole number of cache lines."""


@pytest.fixture
def fast():
    return make_backend("fast")


@pytest.fixture
def plain():
    return NumpyBackend()


@pytest.fixture
def loop(fast):
    """One of the loops, from a library that nothing else keeps."""
    return Library()("axpby", "d")


@pytest.fixture
def alone(fast, monkeypatch):
    """The fused loops, where nothing may be left to NumPy's formulas."""

    def refuse(*arguments, **options):
        raise AssertionError("left to NumPy")

    for name in (
        "activate",
        "activation_backward",
        "adam_update",
        "axpby",
        "dropout",
        "loss_backward",
        "sum_rows",
    ):
        monkeypatch.setattr(NumpyBackend, name, refuse)
    monkeypatch.setattr(Backend, "gemm", refuse)  # where `NumpyBackend.gemm` leaves a product
    return fast


# That they are used.


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_activations_have_loops(alone, activation, dtype, rng):
    z = rng.standard_normal((5, 7)).astype(dtype)
    alone.activate(z, np.ones(7, dtype), activation)
    alone.activate(z, None, activation)
    alone.activation_backward(z.copy(), z, activation)


def test_rules_and_dropout_have_loops(alone, dtype, rng):
    a, b, c, d = (np.abs(rng.standard_normal((3, 4))).astype(dtype) for _ in range(4))
    alone.adam_update(a, b, c, d, STEP)
    alone.axpby(a, b, alpha=2.0, beta=0.5)
    alone.dropout(a, dropout_rate=0.5, scale=2.0, key=1)


@pytest.mark.parametrize(("activation", "loss"), OUTPUTS, ids=lambda x: x.name)
def test_losses_have_loops(alone, activation, loss, dtype, rng):
    z = rng.standard_normal((5, 3)).astype(dtype)
    targets = np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1]]
    alone.loss_backward(z, None, targets, activation, loss, np.zeros(5))
    alone.loss_backward(
        z, np.ones(3, dtype), targets, activation, loss, np.zeros(5), np.ones(5, dtype), 0.5
    )


def test_products_and_sums_have_loops(alone, dtype, rng):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((5, 7), (3, 7)))
    alone.gemm(a, b, np.empty((5, 3), dtype), transpose_b=True)
    alone.gemm(a, np.ones((7, 2), dtype), np.empty((5, 2), dtype))
    alone.gemm(a, np.ones((5, 4), dtype), np.empty((7, 4), dtype), transpose_a=True)
    alone.sum_rows(a, np.ones(7, dtype), alpha=0.5, beta=1.0)


def test_sparse_samples_have_loops(fast, dtype, rng, monkeypatch):
    rows = SparseRows(scipy.sparse.random_array((6, 9), density=0.3, format="csr", dtype=dtype))
    for name in ("add_sums", "add_gradient"):
        monkeypatch.delattr(SparseRows, name)
    fast.gemm(rows, np.ones((4, 9), dtype), np.empty((6, 4), dtype), transpose_b=True)
    fast.gemm(np.ones((6, 4), dtype), rows, np.empty((4, 9), dtype), transpose_a=True)


# Products.

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def product(a, b, before, flags, alpha, beta):
    """Return ``alpha op(a) op(b) + beta before``, and the sum of the sizes of its terms."""
    a, b, before = (array.astype(np.longdouble) for array in (a, b, before))
    a, b = (a.T if flags[0] else a), (b.T if flags[1] else b)
    sizes = abs(alpha) * np.abs(a) @ np.abs(b) + np.abs(beta * before)
    return alpha * (a @ b) + beta * before, sizes


SHAPES = [
    *((m, n, k) for m in (1, 2, 3, 10, 40, 41) for n in (1, 3, 4, 10, 17) for k in (1, 4, 5, 30)),
    *((32, 100, 784), (100, 10, 200), (10, 784, 32), (256, 300, 20), (784, 30, 10)),
    *((0, 3, 4), (3, 0, 4), (3, 4, 0)),
]
"""Few rows for gpunn's own loop, with and without rests, and others for the BLAS."""


@pytest.mark.parametrize("flags", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (-0.3, 1.0), (2.0, 0.7)])
def test_products_are_right_to_the_bound(fast, flags, alpha, beta, dtype, rng):
    for m, n, k in SHAPES:
        a = rng.standard_normal((k, m) if flags[0] else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if flags[1] else (k, n)).astype(dtype)
        before = rng.standard_normal((m, n)).astype(dtype)
        expected, sizes = product(a, b, before, flags, alpha, beta)
        out = np.full_like(before, np.nan) if beta == 0 else before.copy()
        factors = {"alpha": alpha, "beta": beta}
        fast.gemm(a, b, out, transpose_a=flags[0], transpose_b=flags[1], **factors)
        # As the error model has it: k roundings of sums, and those of the products and factors.
        bound = (min(k, 8 * k**0.5) + 3) * UNIT[dtype.name] * sizes
        assert (np.abs(out - expected) <= bound).all(), (m, n, k)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("flags", [(False, True), (False, False), (True, False)])
def test_what_is_no_number_goes_through_a_product(fast, flags, odd, dtype):
    a = np.ones((6, 6), dtype)
    a[2, 3] = odd
    out = np.empty((6, 6), dtype)
    fast.gemm(a, np.ones((6, 6), dtype), out, transpose_a=flags[0], transpose_b=flags[1])
    row = 3 if flags[0] else 2
    np.testing.assert_array_equal(out[row], np.full(6, odd))
    assert np.isfinite(np.delete(out, row, axis=0)).all()


def test_products_of_arrays_that_do_not_suit_are_refused(fast):
    def refused(*arrays, **flags):
        with pytest.raises(ShapeError):
            fast.gemm(*arrays, **flags)

    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4))
    refused(a, b[:2], out)
    refused(a, b, out[:, :3].copy())
    refused(a, b, out, transpose_a=True)
    refused(a, b.astype(np.float32), out)
    refused(a, b, out[:, ::2])
    refused(a, b, out[0])
    refused([[1.0, 2.0, 3.0]] * 2, b, out)
    refused(a, None, out)
    refused(a, b, out.tolist())
    assert (out == 1).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_factors_may_be_column_major(fast, order, dtype, rng):
    a = np.asarray(rng.standard_normal((5, 40)).astype(dtype), order=order)
    b = np.asarray(rng.standard_normal((40, 6)).astype(dtype), order=order)
    out = np.empty((5, 6), dtype)
    fast.gemm(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=200 * UNIT[dtype.name])


def test_all_products_are_those_of_one_library(fast):
    numpys = [library for library in blas_libraries() if "numpy.libs" in library.filepath]
    if not numpys:
        pytest.skip("this NumPy has no OpenBLAS of its own")
    assert fast.blas_path == numpys[0].filepath


def test_sums_of_rows_are_right(fast, dtype, rng):
    for shape in ((1, 5), (7, 3), (8, 40), (29, 100), (0, 4)):
        a = rng.standard_normal(shape).astype(dtype)
        for alpha, beta in ((1.0, 0.0), (-0.5, 1.0), (0.1, 0.9)):
            out = np.full(shape[1], np.nan if beta == 0 else 2.0, dtype)
            before = np.nan_to_num(out)
            fast.sum_rows(a, out, alpha=alpha, beta=beta)
            expected = alpha * a.astype("d").sum(axis=0) + beta * before
            sizes = abs(alpha) * np.abs(a).sum(axis=0, dtype="d") + np.abs(beta * before)
            bound = (shape[0] + 3) * UNIT[dtype.name] * sizes
            assert (np.abs(out - expected) <= bound).all()


# Exponentials.


def exact_sigmoid(z):
    z = z.astype(np.longdouble)
    return 1 / (1 + np.exp(-z))


def everywhere(dtype, rng):
    """Return numbers of all sizes, and those around which exp overflows or becomes subnormal."""
    edges = {"float32": (-104, -103.3, -88, -87.3, 88, 88.7, 89), "float64": (-746, -708, 709, 710)}
    spread = np.concatenate(
        [
            rng.uniform(-1, 1, 20_000) * 10.0 ** rng.uniform(-30, 3, 20_000),
            np.linspace(-110, 110, 20_001),
            *(edge + rng.uniform(-0.5, 0.5, 500) for edge in edges[dtype.name]),
        ]
    )
    return spread.astype(dtype)


@pytest.mark.parametrize(
    ("activation", "exact", "roundings", "least"),
    [
        # The series and its sum, two roundings; exp(r) - 1 from a product and a sum, one each. The
        # reduction leaves r right to half an eps of its own and to what the last part of log(2)
        # lacks, which is below that.
        (EXP, np.exp, 4, 0),
        # A sum and a division more. Where exp(-z) is infinite, it is 0, as in NumPy.
        (SIGMOID, exact_sigmoid, 6, 1),
        # As exp of 2x; t, its sum with 2 and their quotient.
        (TANH, np.tanh, 7, 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_exponentials_are_right_to_the_last_bits(
    fast, activation, exact, roundings, least, dtype, rng
):
    z = everywhere(dtype, rng)
    a = z.reshape(1, -1).copy()
    fast.activate(a, None, activation)
    with np.errstate(over="ignore"):
        expected = exact(z.astype(np.longdouble))
    finite = expected <= np.finfo(dtype).max
    error = np.abs(a[0].astype(np.longdouble) - expected)[finite]
    info = np.finfo(dtype)
    # Below the smallest normal number there are fewer bits.
    floor = info.smallest_subnormal + least / np.longdouble(info.max)
    bound = roundings * info.eps / 2 * np.abs(expected[finite]) + floor
    assert (error <= bound).all(), z[finite][error > bound]
    assert np.isinf(a[0][~finite]).all()


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_what_is_no_number_goes_through_as_in_numpy(fast, plain, activation, dtype):
    z = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0]] * 3, dtype)
    ours, theirs = z.copy(), z.copy()
    fast.activate(ours, np.zeros(5, dtype), activation)
    plain.activate(theirs, np.zeros(5, dtype), activation)
    np.testing.assert_array_equal(ours, theirs)
    ours, theirs = z.copy(), z.copy()
    a = np.full((3, 5), 0.5, dtype)
    fast.activation_backward(ours, a, activation)
    plain.activation_backward(theirs, a, activation)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("activation", "loss"), OUTPUTS, ids=lambda x: x.name)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30])
def test_losses_of_what_is_no_number_are_as_in_numpy(fast, plain, activation, loss, odd, dtype):
    targets, found = np.eye(3, dtype=dtype), []
    for backend in (fast, plain):
        z = np.array([[0.5, odd, 1.0], [odd, 0.0, 2.0], [0.1, 0.2, 0.3]], dtype)
        losses = np.zeros(3)
        with np.errstate(invalid="ignore", over="ignore"):
            backend.loss_backward(z, None, targets, activation, loss, losses)
        found.append((z, losses))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e-42, 1e38])
def test_adam_takes_numbers_at_the_edges_as_numpy_does(fast, plain, odd, dtype):
    found = []
    for backend in (fast, plain):
        w, g, m, v = (np.full((2, 9), x, dtype) for x in (0.5, 0.1, 0.2, 0.3))
        g[0, 4] = w[1, 2] = odd
        with np.errstate(all="ignore"):
            backend.adam_update(w, g, m, v, STEP._replace(weight_decay=0.01))
            backend.adam_update(w, g, m, v, STEP)
        found.append((w, m, v))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))


# Adam against its formula.


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("size", [0, 1, 7, 1000, LONG])
def test_adam_is_its_formula_but_for_rounding(fast, decay, size, dtype, rng):
    w, g, m, v = (rng.standard_normal(size).astype(dtype) for _ in range(4))
    v = np.abs(v)
    step = AdamStep(1e-3, 0.9, 0.999, 1e-8, decay)
    exact = [x.astype(np.longdouble) for x in (w, g, m, v)]
    # The numbers of a step are rounded as the arrays are.
    rate, beta1, beta2, epsilon, shrink = (np.longdouble(dtype.type(x)) for x in step)
    fast.adam_update(w, g, m, v, step)

    unit = np.finfo(dtype).eps / 2
    w0, g0, m0, v0 = exact
    s = g0 + shrink * w0
    err_s = 2 * unit * (np.abs(g0) + np.abs(shrink * w0))
    m1, v1 = beta1 * m0 + s, beta2 * v0 + s * s
    err_m = err_s + 2 * unit * (np.abs(beta1 * m0) + np.abs(s))
    err_v = 2 * np.abs(s) * err_s + 3 * unit * v1
    root = np.sqrt(v1) + epsilon
    err_root = err_v / (2 * np.sqrt(v1)) + 2 * unit * root
    moved = rate * m1 / root
    err_w = rate * err_m / root + np.abs(moved) * (err_root / root + 2 * unit)
    slack = 1 + 20 * unit  # for products of two errors
    assert (np.abs(m - m1) <= slack * err_m).all()
    assert (np.abs(v - v1) <= slack * err_v).all()
    assert (np.abs(w - (w0 - moved)) <= slack * (err_w + unit * np.abs(w0 - moved))).all()


# What is left to NumPy.


def test_arrays_with_gaps_are_right(fast, plain, rng):
    whole = rng.standard_normal((6, 10)).astype(np.float32)
    ours, theirs = whole.copy(), whole.copy()
    fast.activate(ours[:, ::2], None, SIGMOID)
    plain.activate(theirs[:, ::2], None, SIGMOID)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours[:, 1::2], whole[:, 1::2])


def test_arrays_that_are_only_to_be_read_stay_as_they_are(fast):
    a = np.ones((2, 3), np.float32)
    a.flags.writeable = False
    for change in (
        lambda: fast.activate(a, None, SIGMOID),
        lambda: fast.activation_backward(a, a, SIGMOID),
        lambda: fast.axpby(np.ones((2, 3), np.float32), a, alpha=1.0, beta=1.0),
        lambda: fast.adam_update(a, a, a, a, STEP),
        lambda: fast.adam_update(a.copy(), a.copy(), a, a.copy(), STEP),
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    assert (a == 1).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda backend, a, b: backend.activation_backward(a, b, SIGMOID),
        lambda backend, a, b: backend.activate(a, b[0], SIGMOID),
        lambda backend, a, b: backend.axpby(b, a, alpha=1.0, beta=1.0),
        lambda backend, a, b: backend.adam_update(a, b, a.copy(), a.copy(), STEP),
        lambda backend, a, b: backend.loss_backward(
            a, None, b, IDENTITY, SQUARED_ERROR, np.zeros(2)
        ),
    ],
)
def test_shapes_that_do_not_fit_are_left_to_numpy(alone, change):
    with pytest.raises(AssertionError, match="left to NumPy"):
        change(alone, np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))


def test_an_activation_of_the_same_name_is_not_taken_for_gpunns(fast):
    def forward(z, scratch):
        z += 1

    own = Activation("sigmoid", forward, lambda d, a, s: None, np.copy, True, "", "")
    z = np.zeros((2, 2), np.float32)
    fast.activate(z, None, own)
    assert (z == 1).all()


def test_every_activation_with_a_name_works(fast, dtype):
    for activation in ACTIVATIONS.values():
        for shape in ((0, 4), (3, 1), (2, 5)):
            z = np.zeros(shape, dtype)
            fast.activate(z, np.zeros(shape[1], dtype), activation)
            fast.activation_backward(z.copy(), z, activation)


# How they are called.


def test_arrays_are_where_the_loops_look_for_them():
    assert numba_layout.is_known()


def test_a_wrong_call_is_an_error_of_pythons(loop):
    x, y = np.ones(3), np.ones(3)
    for wrong in ((), (x, y), (x, y, 0, 3, 1.0, 1.0, 1.0), (x, y, "0", 3, 1.0, 1.0)):
        with pytest.raises(TypeError):
            loop(*wrong)
    with pytest.raises(OverflowError):
        loop(x, y, 0, 2**70, 1.0, 1.0)
    assert (y == 1).all()


@pytest.mark.parametrize(
    "array",
    [
        *(None, 3, [1.0], "abc", object()),
        *(np.ones(4), np.ones((1, 3)), np.ones(6)[::2], np.matrix([1.0, 1.0, 1.0])),
        *(np.ones(3, kind) for kind in ("f", ">f8", int, object)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_loop_does_nothing_with_what_it_is_not_made_for(array, loop):
    y = np.ones(3)
    assert loop(array, y, 0, 3, 1.0, 1.0) == 0
    assert loop(y, array, 0, 3, 1.0, 1.0) == 0
    assert (y == 1).all()
    assert loop(np.ones(3), y, 0, 3, 1.0, 1.0) == 1
    assert (y == 2).all()


def test_other_threads_go_on_during_a_loop(loop):
    """Python never takes the GIL away here, so the loop must have let go of it."""
    done = threading.Event()
    x, y = np.ones(2_000_000), np.ones(2_000_000)
    gate = threading.Event()

    def wait():
        gate.wait()
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        gate.set()
        for _ in range(1000):
            loop(x, y, 0, y.size, 0.5, 0.5)
            if done.is_set():
                break
    finally:
        sys.setswitchinterval(before)
    assert done.is_set()
    thread.join()


# Threads.


def test_many_threads_change_no_bit(fast, monkeypatch, rng):
    arrays = [np.abs(rng.standard_normal(LONG)).astype(np.float32) for _ in range(4)]
    found = []
    for n_threads in (1, 2, 3):
        monkeypatch.setattr(type(fast._blas), "n_threads", n_threads)
        w, g, m, v = (a.copy() for a in arrays)
        fast.adam_update(w, g, m, v, STEP)
        fast.axpby(g, m, alpha=0.3, beta=0.7)
        z = g[: LONG - 37].reshape(-1, 256)
        fast.activate(z, np.ones(256, np.float32), TANH)
        fast.dropout(w, dropout_rate=0.3, scale=2.0, key=5)
        found.append((w, g, m, v))
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_several_threads_may_compute_at_once(fast, rng):
    z = rng.standard_normal((64, 50)).astype(np.float32)
    expected = z.copy()
    fast.activate(expected, None, SIGMOID)
    results = [z.copy() for _ in range(8)]
    threads = [
        threading.Thread(target=fast.activate, args=(result, None, SIGMOID)) for result in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_dropout_leaves_out_the_same_units_to_the_bit(fast, plain, dtype, rng):
    a = rng.standard_normal((300, 150)).astype(dtype)
    ours, theirs = a.copy(), a.copy()
    for backend, array in ((fast, ours), (plain, theirs)):
        backend.dropout(array, dropout_rate=0.4, scale=1 / 0.6, key=2**32 - 1)
    np.testing.assert_array_equal(ours, theirs)
