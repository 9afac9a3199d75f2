"""ResNet-50 (He et al., 2015; the stride in the 3x3 convolution, as torchvision has it), random weights.

All servers of the benchmark run this file. 25.6 million parameters, 4.1 billion multiplications an image. The
seed is fixed, so that all have the same weights.

Must not know: Headway, or any other server.
"""

import torch
from torch import nn

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, stride of the first
EXPANSION = 4
SEED = 50


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """With its normalisation."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """Narrow, convolve, widen; added to what came in."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.narrow = convolution(inputs, width, 1)
        self.convolve = convolution(width, width, 3, stride)
        self.widen = convolution(width, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.narrow(x))
        y = self.relu(self.convolve(y))
        return self.relu(self.widen(y) + self.shortcut(x))


class Model(nn.Module):
    """[batch, 3, 224, 224] float32 to [batch, 1000] float32."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            self.stem = nn.Sequential(convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
            self.stages = nn.Sequential(*_blocks())
            self.classify = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.stages(self.stem(x)))


def _blocks() -> list[Bottleneck]:
    blocks, inputs = [], 64
    for count, width, first in STAGES:
        for i in range(count):
            blocks.append(Bottleneck(inputs, width, first if i == 0 else 1))
            inputs = width * EXPANSION
    return blocks
