"""TorchServe handler: the first thousand numbers of an image; raw bytes in and out."""

import numpy as np


def handle(requests, context):
    if requests is None:
        return None
    return [np.frombuffer(request["body"], np.float32)[:1000].tobytes() for request in requests]
