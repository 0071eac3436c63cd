"""EG3D's decoder and super-resolution in PyTorch, with EG3D's tensor names. Written from the published description."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Equalized(nn.Module):
    """StyleGAN's linear layer: the stored weight is scaled by 1 / sqrt(inputs)."""

    def __init__(self, inputs, outputs, bias=0.0):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x):
        return F.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class ModulatedConv(nn.Module):
    """A convolution whose weights are scaled by a style for every sample (grouped convolution, as in StyleGAN2)."""

    def __init__(self, inputs, outputs, size, up=False, colour=False):
        super().__init__()
        self.up, self.colour = up, colour
        self.affine = Equalized(512, inputs, 1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.randn(outputs) * 0.1)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("resample_filter", torch.outer(taps, taps) / 64)

    def forward(self, x, w):
        style = self.affine(w)
        if self.colour:
            style = style / math.sqrt(self.weight.shape[1])
        weight = self.weight[None] * style[:, None, :, None, None]
        if not self.colour:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        images = []
        for image, kernel in zip(x, weight, strict=True):
            if self.up:
                y = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
                y = smooth(y, self.resample_filter * 4, (1, 1))
            else:
                y = F.conv2d(image[None], kernel, padding=kernel.shape[-1] // 2)
            images.append(y)
        y = torch.cat(images) + self.bias[:, None, None]
        return y if self.colour else F.leaky_relu(y, 0.2) * math.sqrt(2)


def smooth(x, kernel, padding):
    """A FIR filter on every channel."""
    x = F.pad(x, [*padding, *padding])
    return F.conv2d(x, kernel.flip(0, 1).expand(x.shape[1], 1, *kernel.shape), groups=x.shape[1])


class SynthesisBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv0, self.conv1 = ModulatedConv(inputs, outputs, 3, up=True), ModulatedConv(outputs, outputs, 3)
        self.torgb = ModulatedConv(outputs, 3, 1, colour=True)

    def forward(self, x, colours, w):
        b, c, h, width = colours.shape
        x = self.conv1(self.conv0(x, w), w)
        spread = colours.new_zeros(b, c, 2 * h, 2 * width)
        spread[..., ::2, ::2] = colours
        return x, smooth(spread, self.conv0.resample_filter * 4, (2, 1)) + self.torgb(x, w)


class SuperResolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.block0, self.block1 = SynthesisBlock(32, 256), SynthesisBlock(256, 128)

    def forward(self, colours, x, w):
        x, colours = self.block0(x, colours, w)
        return self.block1(x, colours, w)[1]


class EG3DRenderer(nn.Module):
    """The parts of an EG3D network that convert; `decoder.net` and `superresolution` carry EG3D's names."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.net = nn.Sequential(Equalized(32, 64), nn.Softplus(), Equalized(64, 33))
        self.superresolution = SuperResolution()
