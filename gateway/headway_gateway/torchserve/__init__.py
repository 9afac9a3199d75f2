"""TorchServe's own HTTP and gRPC interfaces in front of Headway's broker.

Served in place of Headway's dialects where the setting `torchserve` names a file of `Properties`.
"""
