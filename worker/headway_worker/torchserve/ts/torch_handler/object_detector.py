"""`ts.torch_handler.object_detector`: boxes around what an image shows."""

from __future__ import annotations

from typing import Any

from headway_worker.torchserve.ts.torch_handler import images
from headway_worker.torchserve.ts.torch_handler.vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """[{label: [x1, y1, x2, y2], "score": s}] of what scores at least `threshold`. The model returns for each
    image a dict of `boxes`, `labels` and `scores`."""

    image_processing = staticmethod(images.to_tensor)
    threshold = 0.5

    def postprocess(self, data: Any) -> list[Any]:
        return [self._found(image) for image in data]

    def _found(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        likely = image["scores"] >= self.threshold
        boxes, labels, scores = (image[name][likely].tolist() for name in ("boxes", "labels", "scores"))
        return [
            {self._label(label): box, "score": score}
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]

    def _label(self, label: Any) -> str:
        return self.mapping[str(label)] if self.mapping is not None else str(label)
