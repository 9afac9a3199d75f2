"""The messages of TorchServe's gRPC interfaces, and what protoc makes of them.

From the folder `gateway`, after a change:

    protos=headway_gateway/torchserve/grpc/proto
    common=$(python -c "import google.rpc; print(list(google.rpc.__path__)[0])")/../..
    python -m grpc_tools.protoc -I. -I"$common" --python_out=. --pyi_out=. $protos/*.proto
"""
