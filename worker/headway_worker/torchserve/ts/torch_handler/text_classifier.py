"""`ts.torch_handler.text_classifier`: the class of a text, one request at a time."""

from __future__ import annotations

from typing import Any

import torch

from headway_worker.torchserve.ts.torch_handler.base_handler import row_of
from headway_worker.torchserve.ts.torch_handler.text_handler import TextHandler, ngrams, numbers
from headway_worker.torchserve.ts.utils.util import map_class_to_label


class TextClassifier(TextHandler):
    """{label: probability} of all classes. The model takes the numbers of a text's words and pairs of words,
    and offsets, as `torch.nn.EmbeddingBag` does."""

    ngrams = 2

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        text = row_of(data[0])
        if isinstance(text, bytes | bytearray):
            text = text.decode()
        if not isinstance(text, str):
            raise TypeError(f"the request must be text, not {type(text).__name__}")
        for step in (
            self._remove_html_tags,
            str.lower,
            self._expand_contractions,
            self._remove_accented_characters,
            self._remove_punctuation,
        ):
            text = step(text)
        return numbers(ngrams(self._tokenize(text), self.ngrams), self.source_vocab, self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        return super().inference(data, torch.as_tensor([0], device=self.device))

    def postprocess(self, data: Any) -> list[Any]:
        return [*map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)]
