"""Headway: a PyTorch model server. This package is the ground that every part stands on.

For users of the library: `Client`, `AsyncClient`, `Body`, `Step`, the stubs for tests, and the errors.
"""

from importlib.metadata import PackageNotFoundError, version

from headway.errors import HeadwayError

try:
    __version__ = version("headway")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_LAZY = {
    "Client": "headway.client",
    "AsyncClient": "headway.aio",
    "Body": "headway.body",
    "Step": "headway.steps",
    "StubClient": "headway.stub",
    "AsyncStubClient": "headway.stub",
}


def __getattr__(name: str) -> object:
    # Loaded when asked for: numpy and zmq take 0.2 s, and `headway --version` needs neither.
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'headway' has no attribute {name!r}")


__all__ = [
    "AsyncClient",
    "AsyncStubClient",
    "Body",
    "Client",
    "HeadwayError",
    "Step",
    "StubClient",
    "__version__",
]
