"""Triton python backend: the first thousand numbers of an image."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = np.ascontiguousarray(x.reshape(len(x), -1)[:, :1000])
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return responses
