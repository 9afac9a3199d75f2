"""`ts.torch_handler.image_classifier`: the likeliest classes of an image."""

from __future__ import annotations

from typing import Any

import torch

from headway_worker.torchserve.ts.torch_handler import images
from headway_worker.torchserve.ts.torch_handler.vision_handler import VisionHandler
from headway_worker.torchserve.ts.utils.util import map_class_to_label


class ImageClassifier(VisionHandler):
    """{label: probability} of the `topk` likeliest, best first."""

    topk = 5
    image_processing = staticmethod(images.photograph())

    def set_max_result_classes(self, topk: int) -> None:
        self.topk = topk

    def get_max_result_classes(self) -> int:
        return self.topk

    def postprocess(self, data: Any) -> list[Any]:
        likely = torch.softmax(data, dim=1)
        probabilities, classes = torch.topk(likely, min(self.topk, likely.shape[1]), dim=1)
        return [*map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())]
