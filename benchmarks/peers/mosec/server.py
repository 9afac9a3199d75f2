"""mosec: the benchmark's models; raw bytes in and out.

The model's name is in BENCH_MODEL, its batch size and delay in BENCH_BATCH and BENCH_DELAY_MS, and the folder
of the benchmark's own `model.py` in BENCH_FOLDER.
"""

import os
import sys

import numpy as np
from mosec import Server, Worker


class Raw(Worker):
    """Bytes and arrays."""

    def deserialize(self, data):
        return np.frombuffer(data, np.float32)

    def serialize(self, data):
        return data.tobytes()


class Tiny(Raw):
    def forward(self, data):
        return list(np.stack(data) * 2)


class Payload(Raw):
    def forward(self, data):
        return [x[:1000] for x in data]


class ResNet50(Raw):
    def __init__(self):
        import torch

        sys.path.append(os.environ["BENCH_FOLDER"])
        from model import Model

        torch.set_num_threads(1)
        self.torch, self.network = torch, Model().eval()

    def forward(self, data):
        x = self.torch.from_numpy(np.stack(data)).view(-1, 3, 224, 224)
        with self.torch.inference_mode():
            return list(self.network(x).numpy())


if __name__ == "__main__":
    worker = {"tiny": Tiny, "payload": Payload, "resnet50": ResNet50}[os.environ["BENCH_MODEL"]]
    batch, delay_ms = int(os.environ["BENCH_BATCH"]), int(os.environ["BENCH_DELAY_MS"])
    server = Server()
    server.append_worker(worker, num=1, max_batch_size=batch, max_wait_time=delay_ms)
    server.run()
