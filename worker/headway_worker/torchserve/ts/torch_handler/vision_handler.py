"""`ts.torch_handler.vision_handler`: images to a batch of tensors, and what in an image decided."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from headway_worker.torchserve.ts.torch_handler import images
from headway_worker.torchserve.ts.torch_handler.base_handler import BaseHandler, row_of


class VisionHandler(BaseHandler):
    """`image_processing`, a Pillow image to a tensor, is for handlers to define."""

    image_processing: Any = None

    def initialize(self, context: Any) -> None:
        super().initialize(context)
        self.ig: Any = None
        images.pillow()  # or the reason why the archive cannot be served

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """Image bytes, base64 text, or nested lists and tensors that are prepared already."""
        made = [self._image(row_of(row)) for row in data]
        if len({image.shape for image in made}) > 1:
            return [image.to(self.device) for image in made]
        return torch.stack(made).to(self.device)

    def _image(self, value: Any) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, str | bytes | bytearray | memoryview):
            tensor: torch.Tensor = self.image_processing(images.opened(value))
            return tensor
        if value is None:
            raise ValueError("a request has neither data nor body")
        return torch.FloatTensor(value)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any = 0) -> Any:
        """Integrated gradients of the images, as nested lists."""
        try:
            captum = importlib.import_module("captum.attr")
        except ImportError:
            raise ImportError("explanations need captum: pip install captum") from None
        self.ig = self.ig or captum.IntegratedGradients(self.model)
        return self.ig.attribute(tensor_data, target=int(target), n_steps=15).tolist()
