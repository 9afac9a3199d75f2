"""Which exceptions say that the GPU, or this process's use of it, is broken for good. Pure.

Knows: CUDA's error codes and what CUDA calls them. Must not know: torch, models, what is to be done.

After such an error every further call of this process to CUDA fails too; only a new process helps. The codes
are those of `cudaError_t` (the driver's `CUresult` numbers most of them alike) of which the CUDA Runtime
API's documentation, section Data types, says that the process is left in an inconsistent state or its context
is lost; 805 to 810 are those of NVIDIA's guide to the Multi-Process Service. Out of memory is none of them: a
batch fails, and the next may fit.

An exception counts only if torch's code for CUDA made it: a model that puts a caller's words into an
exception of its own must not let the caller end workers. torch says `AcceleratorError` with the code, before
2.8 a plain RuntimeError whose text begins as below.
"""

from __future__ import annotations

from collections.abc import Iterator

# Code: what `cudaGetErrorString` says.
FATAL = {
    214: "uncorrectable ECC error encountered",
    219: "uncorrectable NVLink error detected during the execution",
    226: "Invalid access of peer GPU memory over nvlink or a hardware error",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    805: "MPS client failed to connect to the MPS control daemon or the MPS server",
    806: "the remote procedural call between the MPS server and the MPS client failed",
    807: "MPS server is not ready to accept new MPS client requests",
    808: "the hardware resources required to create MPS client have been exhausted",
    809: "the hardware resources required to support device connections have been exhausted",
    810: "the MPS client has been terminated by the server",
    999: "unknown error",
}
BEGINNINGS = ("CUDA error: ", "CUDA driver error: ")
CHAIN_MAX = 20


class DeviceFault(Exception):
    """The device is of no use to this process any more: it ends, without another word to the device."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it came of."""
    seen: BaseException | None = error
    for _ in range(CHAIN_MAX):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def fatal_text(error: BaseException) -> str:
    """What CUDA said, if this one exception says that the device is broken for this process; else ""."""
    text = _first_line(error)
    if not _is_accelerators(error) and type(error) is not RuntimeError:
        return ""
    if getattr(error, "error_code", None) in FATAL:
        return text or FATAL[error.error_code]  # type: ignore[attr-defined]
    told = next((text.removeprefix(start) for start in BEGINNINGS if text.startswith(start)), "")
    return text if told and any(told.startswith(fatal) for fatal in FATAL.values()) else ""


def may_be_cudas(error: BaseException) -> bool:
    """Whether it is worth asking the device: a library of CUDA's may have failed because of an earlier fault,
    and says so in words of its own."""
    text = _first_line(error).lower()
    words = ("cuda", "cublas", "cudnn", "cufft", "cusolver", "cusparse", "nccl")
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def _is_accelerators(error: BaseException) -> bool:
    kind = type(error)
    return kind.__name__ == "AcceleratorError" and kind.__module__.partition(".")[0] == "torch"


def _first_line(error: BaseException) -> str:
    try:
        return str(error).split("\n", 1)[0]
    except Exception:  # an exception of a model's that cannot even be printed
        return ""
