"""Captures of graphs by the double of CuPy: what is recorded, what is replayed, what is refused."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fake_captures import GivenUpError
from fake_cuda import CUDARuntimeError, cupy
from fake_streams import RaceError
from trying import needs_compiler, ones

Event, Stream = cupy.cuda.Event, cupy.cuda.Stream
CODE = """
extern "C" __global__ void doubled(const float* x, float* y, float c) {
    y[threadIdx.x] = 2 * x[threadIdx.x] + c;
}"""


@pytest.fixture
def stream() -> Any:
    return Stream(non_blocking=True)


@contextmanager
def capturing(stream: Any) -> Iterator[list[Any]]:
    """Capture what is given to a stream; append the graph to the list."""
    graphs: list[Any] = []
    ready = Event()
    ready.record()
    stream.wait_event(ready)
    with stream:
        stream.begin_capture()
        try:
            yield graphs
        except BaseException:
            with pytest.raises(CUDARuntimeError):
                stream.end_capture()
            raise
        graphs.append(stream.end_capture())


def on_device(*numbers: float) -> Any:
    return cupy.asarray(np.array(numbers, "float32"))


# Streams that are current.


def test_a_stream_is_current_for_a_while(stream: Any) -> None:
    null, other = cupy.cuda.get_current_stream(), Stream(non_blocking=True)
    assert null.ptr == 0
    assert len({null.ptr, stream.ptr, other.ptr}) == 3
    with stream:
        assert cupy.cuda.get_current_stream() is stream
        with other:
            assert cupy.cuda.get_current_stream() is other
        with cupy.cuda.Device(1):
            assert cupy.cuda.get_current_stream().ptr == 0
        assert cupy.cuda.get_current_stream() is stream
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(cupy.cuda.get_current_stream()))
        thread.start()
        thread.join()
        assert seen == [null]
    assert cupy.cuda.get_current_stream() is null
    with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="another device"):
        stream.__enter__()


def test_a_current_stream_must_wait_and_be_waited_for(stream: Any) -> None:
    array = ones(4)
    with stream, pytest.raises(RaceError, match="another one may be using"):
        array.fill(2)
    array = ones(4)
    event = Event()
    event.record()
    with stream:
        stream.wait_event(event)
        array.fill(2)
        assert (array.get() == 2).all()  # which waits for the stream
    array.fill(3)


def test_a_stream_gets_its_own_memory_again(stream: Any) -> None:
    with stream:
        array = ones(4)
        array.fill(2)
        del array


# What is recorded, and replayed.


@needs_compiler
def test_all_work_is_recorded_and_replayed_in_order(stream: Any) -> None:
    x, y, z = on_device(1, 2, 3), on_device(0, 0, 0), on_device(5, 5, 5)
    added = cupy.ElementwiseKernel("T x, T c", "T y", "y = x + c", "added")
    doubled = cupy.RawModule(code=CODE).get_function("doubled")
    added(x, 0, y)
    doubled((1,), (3,), (x, y, np.float32(0)))
    y.fill(7)
    with capturing(stream) as graphs:
        assert stream.is_capturing()
        z[...] = x
        added(z, 10, z)
        doubled((1,), (3,), (z, y, np.float32(1)))
        z[1:].fill(4)
    assert not stream.is_capturing()
    np.testing.assert_array_equal(y.get(), [7, 7, 7])
    np.testing.assert_array_equal(z.get(), [5, 5, 5])
    graphs[0].launch()
    np.testing.assert_array_equal(y.get(), [23, 25, 27])
    np.testing.assert_array_equal(z.get(), [11, 4, 4])
    x.fill(0)
    graphs[0].upload()
    graphs[0].launch()
    np.testing.assert_array_equal(y.get(), [21, 21, 21])


def test_arguments_are_frozen(stream: Any) -> None:
    source, target, number = on_device(1, 2), on_device(0, 0), np.float32(3)
    with capturing(stream) as graphs:
        target[...] = source
        source.fill(number)
    number += 1
    kept, source = source, on_device(8, 9)
    graphs[0].launch()
    np.testing.assert_array_equal(target.get(), [1, 2])
    np.testing.assert_array_equal(kept.get(), [3, 3])


def test_a_launch_waits_like_other_work(stream: Any) -> None:
    array = ones(4)
    with capturing(stream) as graphs:
        array.fill(2)
    graphs[0].launch(stream)
    with pytest.raises(RaceError, match="another one may be using"):
        array.fill(3)
    array.fill(4)
    with pytest.raises(RaceError, match="another one may be using"):
        graphs[0].launch(stream)
    with stream:
        graphs[0].launch()
    stream.synchronize()
    assert (array.get() == 2).all()


@needs_compiler
def test_checks_are_those_of_plain_launches(stream: Any) -> None:
    beyond = cupy.ElementwiseKernel("raw T x", "T y", "y = x[i + 1]", "beyond")
    x, y = ones(3), ones(2)
    beyond(x, y)
    shorter = ones(2)
    with capturing(stream) as graphs:
        beyond(shorter, y)
    with pytest.raises(IndexError, match="beyond: index 2 of x is out of range"):
        graphs[0].launch()


@needs_compiler
@pytest.mark.parametrize("work", ["fill", "copy", "elementwise", "raw"])
def test_a_graph_keeps_no_memory_alive(stream: Any, work: str) -> None:
    x, y = ones(3), ones(3)
    plain = cupy.ElementwiseKernel("T x", "T y", "y = x", "plain")
    doubled = cupy.RawModule(code=CODE).get_function("doubled")
    plain(x, y)
    doubled((1,), (3,), (x, y, np.float32(0)))
    with capturing(stream) as graphs:
        if work == "fill":
            x.fill(1)
        elif work == "copy":
            y[...] = x
        elif work == "elementwise":
            plain(x, y)
        else:
            doubled((1,), (3,), (x, y, np.float32(0)))
    graphs[0].launch()
    del x
    with pytest.raises(GivenUpError, match="memory that has been given up"):
        graphs[0].launch()


def test_an_empty_graph_is_one_too(stream: Any) -> None:
    with capturing(stream) as graphs:
        pass
    graphs[0].launch()
    with cupy.cuda.Device(1):
        with pytest.raises(RuntimeError, match="another device"):
            graphs[0].launch(stream)
        with pytest.raises(RuntimeError, match="a graph of another device"):
            graphs[0].launch()


# What is refused while a stream captures. The capture is invalid from then on.

ARRAY = ones(4)
NOT_LOADED = 'extern "C" __global__ void fresh(int n) {}'
RECORDED = Event(disable_timing=True)
RECORDED.record()
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "empty": (lambda stream: cupy.empty(3), "StreamCaptureUnsupported"),
    "nothing": (lambda stream: cupy.empty(0), "StreamCaptureUnsupported"),
    "zeros": (lambda stream: cupy.zeros(3), "StreamCaptureUnsupported"),
    "elsewhere": (lambda stream: _allocate_elsewhere(), "device memory is allocated"),
    "pinned": (lambda stream: cupy.cuda.alloc_pinned_memory(8), "StreamCaptureUnsupported"),
    "asarray": (lambda stream: cupy.asarray(np.ones(3)), "StreamCaptureUnsupported"),
    "copy": (lambda stream: ARRAY.copy(), "StreamCaptureUnsupported"),
    "synchronize": (lambda stream: stream.synchronize(), "StreamCaptureUnsupported"),
    "other": (lambda stream: Stream(non_blocking=True).synchronize(), "StreamCaptureUnsupported"),
    "device": (lambda stream: cupy.cuda.runtime.deviceSynchronize(), "StreamCaptureUnsupported"),
    "event": (lambda stream: RECORDED.synchronize(), "StreamCaptureUnsupported"),
    "get": (lambda stream: ARRAY.get(), "StreamCaptureUnsupported"),
    "set": (lambda stream: ARRAY.set(np.ones(4, "float32")), "StreamCaptureUnsupported"),
    "set on": (
        lambda stream: ARRAY.set(np.ones(4, "float32"), stream=stream),
        "StreamCaptureUnsupported",
    ),
    "item": (lambda stream: ARRAY[0].item(), "StreamCaptureUnsupported"),
    "bool": (lambda stream: bool(ARRAY[0]), "StreamCaptureUnsupported"),
    "outside": (lambda stream: stream.wait_event(RECORDED), "StreamCaptureIsolation"),
    "null": (
        lambda stream: cupy.cuda.Event().record(_null_stream()),
        "StreamCaptureImplicit",
    ),
    "null waits": (lambda stream: _null_waits(stream), "StreamCaptureImplicit"),
    "own event": (lambda stream: _recorded(stream).synchronize(), "StreamCaptureUnsupported"),
    "graph": (lambda stream: EMPTY.launch(stream), "StreamCaptureUnsupported"),
}


def _null_stream() -> Any:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(cupy.cuda.get_current_stream()))
    thread.start()
    thread.join()
    return seen[0]


def _recorded(stream: Any) -> Any:
    event = Event(disable_timing=True)
    event.record(stream)
    return event


def _allocate_elsewhere() -> None:
    with Stream(non_blocking=True):
        cupy.empty(3)


def _null_waits(stream: Any) -> None:
    _null_stream().wait_event(_recorded(stream))


def _empty_graph() -> Any:
    with capturing(Stream(non_blocking=True)) as graphs:
        pass
    return graphs[0]


EMPTY = _empty_graph()


@pytest.mark.parametrize("case", REFUSED)
def test_captures_refuse(stream: Any, case: str) -> None:
    call, message = REFUSED[case]
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match=message):
            call(stream)
        assert stream.is_capturing()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
    assert not stream.is_capturing()
    assert (ARRAY.get() == 1).all()


def test_the_null_stream_is_not_used_for_work(stream: Any) -> None:
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
        ARRAY.fill(1)
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()


@needs_compiler
def test_kernels_are_loaded_before(stream: Any) -> None:
    plain = cupy.ElementwiseKernel("T x", "T y", "y = x", "plain")
    fresh = cupy.RawModule(code=NOT_LOADED).get_function("fresh")
    x, y = ones(3, dtype="float64"), ones(3, dtype="float64")
    plain(ones(3), ones(3))  # another specialisation
    for launch in (lambda: plain(x, y), lambda: fresh((1,), (1,), (np.int32(1),))):
        with stream:
            stream.begin_capture()
            with pytest.raises(CUDARuntimeError, match="is not loaded yet"):
                launch()
            with pytest.raises(CUDARuntimeError, match="Invalidated"):
                stream.end_capture()
        launch()
        stream.wait_event(_recorded(None))
        with capturing(stream):
            launch()


def test_products_of_cupy_are_not_captured(stream: Any) -> None:
    handle = cupy.cuda.device.get_cublas_handle()
    with capturing(stream), pytest.raises(NotImplementedError, match="during stream capture"):
        cupy.cuda.cublas.gemmEx(handle, *[0] * 18)


def test_captures_begin_and_end_in_order(stream: Any) -> None:
    with pytest.raises(CUDARuntimeError, match="StreamCaptureUnsupported"):
        cupy.cuda.get_current_stream().begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="another device"):
        stream.begin_capture()
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.begin_capture()
    errors: list[Any] = []

    def end() -> None:
        with pytest.raises(CUDARuntimeError) as caught:
            stream.end_capture()
        errors.append(caught.value.status)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert errors == [908]
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()
    with pytest.raises(ValueError, match="no mode"):
        stream.begin_capture(3)


def test_the_null_stream_of_another_thread_cannot_join(stream: Any) -> None:
    statuses: list[int] = []

    def join() -> None:
        with pytest.raises(CUDARuntimeError) as caught:
            cupy.cuda.get_current_stream().wait_event(event)
        statuses.append(caught.value.status)

    stream.begin_capture()
    event = _recorded(stream)
    thread = threading.Thread(target=join)
    thread.start()
    thread.join()
    assert statuses == [906]
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()


def test_other_threads_go_on(stream: Any) -> None:
    array, results = ones(3), []
    with capturing(stream):
        thread = threading.Thread(target=lambda: results.append(cupy.zeros(3).get()))
        thread.start()
        thread.join()
        array.fill(2)
    assert len(results) == 1


# Branches.


def fork(stream: Any, other: Any) -> None:
    other.wait_event(_recorded(stream))


def test_branches_part_and_meet(stream: Any) -> None:
    other = Stream(non_blocking=True)
    x, y, z = on_device(1, 2), on_device(0, 0), on_device(0, 0)
    with capturing(stream) as graphs:
        x.fill(3)
        fork(stream, other)
        assert other.is_capturing()
        with other:
            y[...] = x
        z[...] = x  # reading it in both branches is no race
        fork(other, stream)
        x.fill(5)
    assert not other.is_capturing()
    graphs[0].launch()
    for array, value in ((x, 5), (y, 3), (z, 3)):
        assert (array.get() == value).all()


def test_parts_of_one_allocation_in_two_branches(stream: Any) -> None:
    other, x = Stream(non_blocking=True), ones(8)
    with capturing(stream) as graphs:
        fork(stream, other)
        x[:4].fill(2)
        with other:
            x[4:].fill(3)
        fork(other, stream)
    graphs[0].launch()
    np.testing.assert_array_equal(x.get(), [2] * 4 + [3] * 4)


@pytest.mark.parametrize("written_first", [True, False])
def test_branches_that_race_are_noticed(stream: Any, written_first: bool) -> None:
    other, x, y = Stream(non_blocking=True), ones(4), ones(4)
    works = [lambda: x.fill(1), lambda: y.__setitem__(..., x)]
    first, second = works if written_first else works[::-1]
    with stream:
        stream.begin_capture()
        fork(stream, other)
        first()
        with other, pytest.raises(RaceError, match="two branches of a graph"):
            second()
        with pytest.raises(CUDARuntimeError, match="Invalidated"):
            stream.end_capture()


@needs_compiler
@pytest.mark.parametrize("whole", [True, False])
def test_kernels_race_by_what_they_write(stream: Any, whole: bool) -> None:
    other, x, y, z = Stream(non_blocking=True), ones(3), ones(3), ones(3)
    plain = cupy.ElementwiseKernel("T x", "T y", "y = x", "plain")
    doubled = cupy.RawModule(code=CODE).get_function("doubled")

    def work(source: Any, target: Any) -> None:
        if whole:
            doubled((1,), (3,), (source, target, np.float32(0)))
        else:
            plain(source, target)

    work(x, y)
    stream.wait_event(_recorded(None))
    with stream:
        stream.begin_capture()
        fork(stream, other)
        work(x, y)
        with other:
            work(x, z)  # both read x
            with pytest.raises(RaceError, match="two branches of a graph"):
                work(y, z)
        with pytest.raises(CUDARuntimeError, match="Invalidated"):
            stream.end_capture()


def test_branches_must_be_joined(stream: Any) -> None:
    other, x = Stream(non_blocking=True), ones(4)
    for work in (True, False):
        with stream:
            stream.begin_capture()
            fork(stream, other)
            if work:
                with other:
                    x.fill(1)
            with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
                stream.end_capture()
        assert not stream.is_capturing()
        assert not other.is_capturing()
    with stream:
        stream.begin_capture()
        fork(stream, other)
        fork(other, stream)
        with other:
            x.fill(1)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnjoined"):
            stream.end_capture()


def test_branches_end_with_the_stream_that_began(stream: Any) -> None:
    other = Stream(non_blocking=True)
    stream.begin_capture()
    fork(stream, other)
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnmatched"):
        other.end_capture()
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()
    assert not other.is_capturing()


def test_captures_do_not_merge(stream: Any) -> None:
    other = Stream(non_blocking=True)
    stream.begin_capture()
    other.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureMerge"):
        fork(stream, other)
    for each in (stream, other):
        with pytest.raises(CUDARuntimeError, match="Invalidated"):
            each.end_capture()


def test_events_of_a_capture_are_of_no_use_outside(stream: Any) -> None:
    stream.begin_capture()
    event = Event()
    event.record(stream)
    stream.end_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorCapturedEvent"):
        event.synchronize()
    with pytest.raises(CUDARuntimeError, match="cudaErrorCapturedEvent"):
        stream.wait_event(event)
    with pytest.raises(CUDARuntimeError, match="cudaErrorCapturedEvent"):
        cupy.cuda.get_elapsed_time(event, event)
    event.record()
    event.synchronize()
