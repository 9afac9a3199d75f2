"""Which exceptions say that the device is broken, and which only look like it."""

from __future__ import annotations

import pytest

from headway_worker.faults import CHAIN_MAX, FATAL, chain, fatal_text, may_be_cudas

# As torch makes it, in C++: of this name and module, with the code as an attribute.
AcceleratorError = type("AcceleratorError", (RuntimeError,), {"__module__": "torch"})
HINTS = "\nCUDA kernel errors might be asynchronously reported at some other API call"


def accelerator_error(text: str, code: int | None) -> BaseException:
    error = AcceleratorError(f"CUDA error: {text}{HINTS}")
    if code is not None:
        error.error_code = code
    return error


@pytest.mark.parametrize(("code", "text"), FATAL.items())
def test_a_fatal_error_is_known_by_its_code_and_by_its_text(code: int, text: str) -> None:
    assert fatal_text(accelerator_error("in words of a later CUDA", code))
    assert fatal_text(accelerator_error(text, None)) == f"CUDA error: {text}"
    assert fatal_text(RuntimeError(f"CUDA error: {text}{HINTS}")) == f"CUDA error: {text}"
    assert fatal_text(RuntimeError(f"CUDA driver error: {text}"))


@pytest.mark.parametrize("code", range(805, 811))
def test_every_error_of_cuda_mps_is_fatal(code: int) -> None:
    assert code in FATAL


@pytest.mark.parametrize(
    "error",
    [
        accelerator_error("invalid argument", 1),
        accelerator_error("out of memory", 2),
        accelerator_error("invalid configuration argument", None),
        RuntimeError("shape '[2]' is invalid for input of size 3"),
        RuntimeError("the caller says: CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: "),
        RuntimeError("CUDA error: the caller says unspecified launch failure"),
        ValueError("CUDA error: unspecified launch failure"),
        NotImplementedError("CUDA error: unspecified launch failure"),
        type("AcceleratorError", (ValueError,), {"__module__": "model"})("CUDA error: unknown error"),
        SystemExit("CUDA error: unknown error"),
    ],
)
def test_others_are_not(error: BaseException) -> None:
    assert fatal_text(error) == ""


def test_an_exception_that_cannot_be_printed_is_not() -> None:
    class Rude(RuntimeError):
        def __str__(self) -> str:
            raise ValueError

    assert fatal_text(Rude()) == ""
    assert not may_be_cudas(Rude())


def test_what_a_library_of_cudas_says_is_worth_a_question() -> None:
    assert may_be_cudas(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    assert may_be_cudas(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    assert not may_be_cudas(RuntimeError("shape '[2]' is invalid"))
    assert not may_be_cudas(ValueError("cuda"))


def test_the_chain_goes_through_causes_and_contexts_and_ends() -> None:
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904  (a model may well write this)
        except ValueError as error:
            raise TypeError("third") from error
    except TypeError as error:
        assert [type(e) for e in chain(error)] == [TypeError, ValueError, KeyError]
        error.__cause__ = error
        assert len(list(chain(error))) == CHAIN_MAX
