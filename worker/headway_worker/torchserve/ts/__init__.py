"""The modules that TorchServe's handlers import as `ts.*`, for archives only (see `modules`).

Written from a description of how TorchServe 0.12 behaves. What is not here raises ModuleNotFoundError when
it is imported.
"""

__version__ = "0.12.0"  # of TorchServe: what handlers see here is what they see there
