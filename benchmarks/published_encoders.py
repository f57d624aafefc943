"""The published agent's encoders as its paper and release describe them, in the plainest PyTorch.

Written from the description (Grigsby et al. 2024, Table 2 and Appendix A; release 3.3.0 for sizes), to have something
to time ours beside: every place of a batch is encoded, padding too, and every timestep reads its own mission.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm = nn.GroupNorm(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.second(F.relu(self.first(F.relu(x)))))


class PublishedResNet(nn.Module):
    """IMPALA's ResNet with GroupNorm, and DrQ-v2's shift by interpolation, one for each frame.

    Args:
        frame: Height, width, channels.
        channels: Of its blocks.
        width: Of its features.
        numbers: What joins the features: action, reward and other vectors.
    """

    def __init__(self, frame: tuple[int, int, int], channels: tuple[int, ...], width: int, numbers: int) -> None:
        super().__init__()
        height, across, colours = frame
        self.blocks = nn.Sequential()
        for inputs, outputs in pairwise((colours, *channels)):
            self.blocks.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            self.blocks.append(nn.MaxPool2d(3, 2, 1))
            self.blocks.extend([Residual(outputs), Residual(outputs)])
            height, across = -(-height // 2), -(-across // 2)
        self.features = nn.Linear(height * across * channels[-1], width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width + numbers, width)

    def forward(self, frames: Tensor, numbers: Tensor) -> Tensor:
        """``(M, H, W, C)`` uint8 and ``(M, N)``, to ``(M, width)``."""
        x = self.moved(frames.permute(0, 3, 1, 2).contiguous().float()) / 255
        features = F.relu(self.norm(self.features(F.relu(self.blocks(x)).flatten(1))))
        return self.out(torch.cat([features, numbers], dim=-1))

    @staticmethod
    def moved(x: Tensor, most: int = 4) -> Tensor:
        """Padded by the border's pixels, and read from a random place (Yarats et al. 2021)."""
        count, _, height, width = x.shape
        x = F.pad(x, (most,) * 4, mode="replicate")
        tall, wide = height + 2 * most, width + 2 * most
        down = torch.linspace(-1 + 1 / tall, 1 - 1 / tall, tall)[:height]
        right = torch.linspace(-1 + 1 / wide, 1 - 1 / wide, wide)[:width]
        grid = torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1).expand(count, -1, -1, -1)
        shift = torch.randint(2 * most + 1, (count, 1, 1, 2)) * (2 / torch.tensor([wide, tall]))
        return F.grid_sample(x, grid + shift, padding_mode="zeros", align_corners=False)


class PublishedGridReader(nn.Module):
    """A CNN over the grid, a GRU over every timestep's mission, all merged to 300.

    Args:
        values: Of a number of a cell.
        words: In the vocabulary.
        size: Height and width of the grid.
        width: Of its output.
        numbers: What joins.
    """

    def __init__(self, values: int, words: int, size: tuple[int, int], width: int, numbers: int) -> None:
        super().__init__()
        self.values = values
        self.cells = nn.Embedding(3 * values, 24)
        self.convolutions = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU(), nn.Flatten()
        )
        self.seen = nn.Linear(24 * (size[0] - 2) * (size[1] - 2), 128)
        self.words = nn.Embedding(words, 18)
        self.reading = nn.GRU(18, 96, batch_first=True)
        self.read = nn.Linear(96, 48)
        self.rest = nn.Linear(numbers, 16)
        self.merged = nn.Sequential(nn.ReLU(), nn.Linear(192, 300), nn.ReLU(), nn.Linear(300, width))

    def forward(self, grid: Tensor, missions: Tensor, numbers: Tensor) -> Tensor:
        """``(M, H, W, 3)`` uint8, ``(M, words)`` and ``(M, N)``, to ``(M, width)``."""
        cells = self.cells(grid.long() + self.values * torch.arange(3)).sum(dim=-2).permute(0, 3, 1, 2)
        read = self.read(self.reading(self.words(missions.long()))[0][:, -1])
        parts = [self.seen(self.convolutions(cells)), read, self.rest(numbers)]
        return self.merged(torch.cat(parts, dim=-1))
