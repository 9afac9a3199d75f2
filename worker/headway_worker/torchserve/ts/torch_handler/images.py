"""Photographs to tensors as the default image handlers do it, with Pillow and torch alone.

Knows: Pillow. Must not know: requests.

The steps are those that torchvision calls Resize, CenterCrop, ToTensor and Normalize, on Pillow's images,
with the same rounding. (Headway's own module: TorchServe has torchvision's.)
"""

from __future__ import annotations

import base64
import importlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[[Any], Any]


def pillow() -> Any:
    """Raises: ImportError that says what to install."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise ImportError("image handlers need Pillow: pip install pillow") from None


def opened(data: Any) -> Any:
    """The photograph in bytes, or in text as base64."""
    if isinstance(data, str):
        data = base64.b64decode(data)
    return pillow().open(io.BytesIO(bytes(data)))


def chain(*steps: Step) -> Step:
    """One step after another."""

    def run(image: Any) -> Any:
        for step in steps:
            image = step(image)
        return image

    return run


def resize(short: int) -> Step:
    """The short side to `short` pixels, the long one in proportion, rounded down."""

    def run(image: Any) -> Any:
        width, height = image.size
        least = min(width, height)
        size = (short * width // least, short * height // least)
        most = pillow().MAX_IMAGE_PIXELS
        if most and size[0] * size[1] > 2 * most:  # as Pillow's own limit for what it decodes
            raise ValueError(f"an image of {width} x {height} would become one of {size[0]} x {size[1]}")
        return image if size == image.size else image.resize(size, pillow().Resampling.BILINEAR)

    return run


def centre(side: int) -> Step:
    """`side` x `side` pixels from the middle; black where the image has none."""

    def run(image: Any) -> Any:
        width, height = image.size
        left, top = round((width - side) / 2.0), round((height - side) / 2.0)
        return image.crop((left, top, left + side, top + side))

    return run


def to_tensor(image: Any) -> torch.Tensor:
    """[3, height, width] float32, from 0 to 1."""
    coloured = image.convert("RGB")
    width, height = coloured.size
    pixels = torch.frombuffer(bytearray(coloured.tobytes()), dtype=torch.uint8)
    return pixels.reshape(height, width, 3).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def normalize(mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Step:
    """(x - mean) / std, by colour."""
    means, stds = (torch.tensor(list(values)).reshape(-1, 1, 1) for values in (mean, std))
    return lambda image: (image - means) / stds


def photograph() -> Step:
    """What models of ImageNet take: [3, 224, 224]."""
    return chain(resize(256), centre(224), to_tensor, normalize())
