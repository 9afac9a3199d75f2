"""One request before and after EfficientNet-Lite0: a photograph in, five classes out.

Knows: how photographs were prepared when the weights were trained, and the names of the classes.
Must not know: batches, devices, other requests.

A worker loads this file from the model's folder, where `labels.txt` lies beside it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image, UnidentifiedImageError

SHORT_SIDE = 256
CROP = 224
PIXELS_MAX = 50_000_000  # 150 MB as RGB: a few kilobytes of PNG can hold far more
TOP = 5
UNREADABLE = "the body is not an image that can be read"
LABELS = (Path(__file__).parent / "labels.txt").read_text(encoding="utf-8").splitlines()


class Request(Protocol):
    """As much of Headway's request as is used here."""

    body: bytes


def preprocess(request: Request) -> dict[str, torch.Tensor]:
    """`image`: [3, 224, 224] float32, cpu. Raises: ValueError when the body is not an image."""
    photograph = centre(decode(request.body))
    pixels = torch.frombuffer(bytearray(photograph.tobytes()), dtype=torch.uint8)
    image = pixels.reshape(CROP, CROP, 3).permute(2, 0, 1).to(torch.float32)
    return {"image": ((image - 127) / 128).contiguous()}


def postprocess(outputs: dict[str, torch.Tensor], request: Request) -> dict[str, Any]:
    """The likeliest classes, best first. `logits` is [1000]."""
    probabilities, classes = outputs["logits"].float().softmax(0).topk(TOP)
    pairs = zip(classes.tolist(), probabilities.tolist(), strict=True)
    return {"top": [{"class": c, "label": LABELS[c], "probability": p} for c, p in pairs]}


def decode(body: bytes) -> Image.Image:
    """The photograph as RGB. Raises: ValueError, whatever is wrong with it."""
    try:
        with Image.open(io.BytesIO(body)) as photograph:
            check_size(*photograph.size)
            return photograph.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(f"{UNREADABLE}: its format is not known") from None
    except Exception as error:  # Pillow's decoders raise nearly anything when bytes are broken
        raise ValueError(f"{UNREADABLE}: {error}") from error


def check_size(width: int, height: int) -> None:
    """Called before the pixels are decoded. Raises: ValueError when they are too many."""
    if width * height > PIXELS_MAX:
        raise ValueError(f"{width} x {height} are more than {PIXELS_MAX} pixels")


def centre(photograph: Image.Image) -> Image.Image:
    """Resizes the short side to 256 and cuts 224 x 224 from the middle.

    Both in one step: only pixels of the cut are made, so that a photograph of 1 x 100,000 costs no
    more than any other.
    """
    short = min(photograph.size)
    whole = [round(side * SHORT_SIDE / short) for side in photograph.size]
    (left, right), (top, bottom) = map(cut, photograph.size, whole)
    size, box = (CROP, CROP), (left, top, right, bottom)
    return photograph.resize(size, Image.Resampling.BICUBIC, box=box)


def cut(side: int, resized: int) -> tuple[float, float]:
    """Where the cut begins and ends on a side, in pixels of the photograph as it came."""
    first = (resized - CROP) // 2
    return first * side / resized, (first + CROP) * side / resized
