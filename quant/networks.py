"""Networks to train and convert: ResNets for CIFAR-10, a small vision Transformer, a Transformer of characters.

Plain torch; quant.quantize_ makes their layers low-bit. ENDS names the first and last layers, which stay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016): where sizes change, the shortcut takes every other position
    and fills channels with zeros (his option A), or is a 1x1 convolution (B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, projected: bool):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.stride, self.more = stride, outputs - inputs
        self.shortcut = None
        if projected and (stride > 1 or self.more):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.more:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return self.relu2(y + x)


class ResNet(nn.Module):
    """For pictures of 32x32: a 3x3 convolution, stages of blocks, the mean, a linear layer."""

    def __init__(self, widths: tuple[int, ...], blocks: int, projected: bool, classes: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages, inputs = [], widths[0]
        for i, width in enumerate(widths):
            for j in range(blocks):
                stages.append(Block(inputs, width, 2 if i and not j else 1, projected))
                inputs = width
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(inputs, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.relu(self.norm(self.conv(x)))).mean((2, 3)))


class Layer(nn.Module):
    """A Transformer's, normalized first. Products of attention's queries, keys and values stay floating point."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.act = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=self.causal)
        x = x + self.out(seen.transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(self.act(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 4x4 of pictures of 32x32, a mean over tokens, a linear layer."""

    def __init__(self, width: int, layers: int, heads: int, classes: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads, False) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.layers(x + self.places.to(x.dtype))).mean(1))


CONTEXT = 128


class CharTransformer(nn.Module):
    """Next characters: int64 (n, up to CONTEXT) -> logits (n, tokens, characters)."""

    def __init__(self, width: int, layers: int, heads: int, characters: int):
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.places = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads, True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)
        nn.init.normal_(self.characters.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.characters(x) + self.places[:, : x.shape[1]])))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": lambda classes: ResNet((16, 32, 64), 3, False, classes),
    "resnet18": lambda classes: ResNet((64, 128, 256, 512), 2, True, classes),
    "vit-tiny": lambda classes: ViT(192, 6, 3, classes),
    "char": lambda classes: CharTransformer(128, 4, 4, classes),
}
ENDS = ("conv", "patches", "head")  # of any of them: usually left as they are in this literature


def ends(model: nn.Module) -> tuple[str, ...]:
    """Names of its first and last layers."""
    return tuple(name for name, _ in model.named_children() if name in ENDS)
