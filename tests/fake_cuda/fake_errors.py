"""Errors of CUDA's runtime, by number."""

from typing import ClassVar


class CUDARuntimeError(RuntimeError):
    _TEXTS: ClassVar = {
        35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient",
        100: "cudaErrorNoDevice: no CUDA-capable device is detected",
        101: "cudaErrorInvalidDevice: invalid device ordinal",
        401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
        900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
        901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during "
        "capture",
        902: "cudaErrorStreamCaptureMerge: operation would result in a merge of separate capture "
        "sequences",
        903: "cudaErrorStreamCaptureUnmatched: capture was not ended in the same stream as it "
        "began",
        904: "cudaErrorStreamCaptureUnjoined: capturing stream has unjoined work",
        905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another "
        "stream",
        906: "cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on a "
        "capturing blocking stream",
        907: "cudaErrorCapturedEvent: operation not permitted on an event last recorded in a "
        "capturing stream",
        908: "cudaErrorStreamCaptureWrongThread: attempt to terminate a thread-local capture "
        "sequence from another thread",
    }

    def __init__(self, status: int, what: str = "") -> None:
        self.status = status
        super().__init__(self._TEXTS[status] + (f" ({what})" if what else ""))
