"""TorchServe handler: the benchmark's ResNet-50 (model.py, beside it in the archive); raw bytes."""

import numpy as np
import torch
from model import Model

torch.set_num_threads(1)
network = Model().eval()


def handle(requests, context):
    if requests is None:
        return None
    x = np.stack([np.frombuffer(request["body"], np.float32) for request in requests])
    with torch.inference_mode():
        y = network(torch.from_numpy(x).view(-1, 3, 224, 224)).numpy()
    return [row.tobytes() for row in y]
