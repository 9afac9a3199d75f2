"""Triton python backend: the benchmark's ResNet-50 (network.py, beside it)."""

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from network import Model


class TritonPythonModel:
    def initialize(self, args):
        torch.set_num_threads(1)
        self.network = Model().eval()

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        with torch.inference_mode():
            y = self.network(torch.from_numpy(np.concatenate(inputs))).numpy()
        ends = np.cumsum([len(x) for x in inputs])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", part)]) for part in np.split(y, ends)]
