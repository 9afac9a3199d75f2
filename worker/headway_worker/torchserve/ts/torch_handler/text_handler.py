"""`ts.torch_handler.text_handler`: text to words, and the vocabulary of an archive.

Knows: `source_vocab.pt`, English. Must not know: models.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from headway_worker.torchserve.ts.torch_handler.base_handler import BaseHandler

VOCABULARY = "source_vocab.pt"
_WHOLE = {
    "won't": "will not", "can't": "cannot", "shan't": "shall not", "ain't": "is not", "let's": "let us",
    "y'all": "you all", "ma'am": "madam", "o'clock": "of the clock", "'cause": "because",
}  # fmt: skip
_ENDINGS = {
    "n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'d": " would", "'m": " am", "'s": " is",
}  # fmt: skip
_TAG = re.compile(r"<[^>]*>")
_CONTRACTED = re.compile(r"[a-z]*'[a-z]+")
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")


class TextHandler(BaseHandler):
    """`source_vocab` maps a word to its number; a word that it lacks has the number of `<unk>`, or 0."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None

    def initialize(self, context: Any) -> None:
        super().initialize(context)
        path = Path(self.get_source_vocab_path(context))
        self.source_vocab = self._vocabulary(path)

    def get_source_vocab_path(self, ctx: Any) -> str:
        """Of older archives the manifest names the file."""
        named = ctx.manifest.get("model", {}).get("sourceVocab") or VOCABULARY
        return str(Path(ctx.system_properties["model_dir"]) / named)

    def _vocabulary(self, path: Path) -> Any:
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path.name} in the archive, which text handlers need")
        found = self._weights(str(path))
        return _Words(found) if isinstance(found, dict) else found

    def get_word_token(self, input_tokens: Any) -> list[str]:
        """The words of a row of numbers."""
        words = {number: word for word, number in dict(self.source_vocab).items()}
        return [words.get(int(number), "<unk>") for number in input_tokens]

    def _remove_html_tags(self, text: str) -> str:
        return html.unescape(_TAG.sub("", text))

    def _expand_contractions(self, text: str) -> str:
        return _CONTRACTED.sub(lambda found: _expanded(found[0]), text.replace("\u2019", "'"))

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(str.maketrans("", "", string.punctuation))

    def _tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())


class _Words(dict[str, int]):
    """A vocabulary that was saved as a dict."""

    def __missing__(self, word: str) -> int:
        return self.get("<unk>", 0)


def _expanded(word: str) -> str:
    if word in _WHOLE:
        return _WHOLE[word]
    ending = next((end for end in _ENDINGS if word.endswith(end) and word != end), "")
    return word.removesuffix(ending) + _ENDINGS[ending] if ending else word


def ngrams(tokens: list[str], most: int) -> Iterator[str]:
    """The tokens, then two together, and so on up to `most`, with spaces between them."""
    for count in range(1, most + 1):
        for first in range(len(tokens) - count + 1):
            yield " ".join(tokens[first : first + count])


def numbers(words: Iterator[str], vocabulary: Any, device: Any) -> torch.Tensor:
    """The words' numbers, [words] int64."""
    return torch.as_tensor([int(vocabulary[word]) for word in words], dtype=torch.int64, device=device)
