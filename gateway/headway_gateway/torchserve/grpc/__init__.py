"""TorchServe's gRPC interfaces, served by a process of its own: `python -m headway_gateway.torchserve.grpc`.

`import grpc` means the library, here as everywhere: imports are absolute.
"""
