"""`ts.torch_handler.image_segmenter`: the class of every pixel."""

from __future__ import annotations

from typing import Any

import torch

from headway_worker.torchserve.ts.torch_handler import images
from headway_worker.torchserve.ts.torch_handler.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """[height][width][class, probability] of each image. The model returns a dict with `out`,
    [batch, classes, height, width]."""

    image_processing = staticmethod(images.photograph())

    def postprocess(self, data: Any) -> list[Any]:
        probabilities, classes = torch.softmax(data["out"], dim=1).max(dim=1)
        listed: list[Any] = torch.stack([classes.type(probabilities.dtype), probabilities], dim=3).tolist()
        return listed
