"""`headway torchserve`: TorchServe's command line over a stack of Headway's own processes.

Knows: files, processes, signals. Must not know: what the processes do with what they are told.
"""
