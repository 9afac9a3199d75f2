"""What every process must know of TorchServe: its archives' manifests, its configuration, its keys.

Knows: TorchServe's files. Must not know: HTTP, brokers, torch.
"""
