"""The published networks in PyTorch, with the tensor names of the files that people have. Written for the parity
tests."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep the signal's scale, and random batch statistics, so that every tensor matters."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                part.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.0, generator=generator)
            part.bias.data.normal_(0, 0.2, generator=generator)
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def outputs(module: nn.Module, images: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """What the named submodules return for the images; the whole module's result under ""."""
    found: dict[str, torch.Tensor] = {}
    parts = dict(module.named_modules())
    hooks = [parts[n].register_forward_hook(lambda _, __, y, n=n: found.__setitem__(n, y.clone())) for n in names]
    with torch.no_grad():
        found[""] = module(images)
    for hook in hooks:
        hook.remove()
    return found


# --- torchvision: VGG16, ResNet, DeepLabV3 ---------------------------------------------------------------------------


class VGG16(nn.Module):
    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            channels = width or channels
        self.features = nn.Sequential(*layers)

    def forward(self, x):
        return self.features(x)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, width, stride, dilation, bottleneck):
        super().__init__()
        self.bottleneck = bottleneck
        outputs = width * 4 if bottleneck else width
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
            self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, bottleneck: bool, classes: int | None = 1000, dilate: tuple[bool, bool, bool] = (False,) * 3):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels, dilation = 64, 1
        for i, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
            stride, before = (1 if i == 0 else 2), dilation
            if i > 0 and dilate[i - 1]:
                stride, dilation = 1, dilation * 2
            layer = []
            for j in range(blocks):
                first = j == 0
                d = before if first else dilation
                layer.append(ResidualBlock(channels, width, stride if first else 1, d, bottleneck))
                channels = width * 4 if bottleneck else width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
        if classes is not None:
            self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3))) if hasattr(self, "fc") else x


class ASPP(nn.Module):
    def __init__(self, inputs):
        super().__init__()

        def unit(channels, size, rate):
            padding = 0 if size == 1 else rate
            layer = nn.Conv2d(channels, 256, size, padding=padding, dilation=rate, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(256), nn.ReLU())

        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *unit(inputs, 1, 1))
        self.convs = nn.ModuleList([unit(inputs, 1, 1), *(unit(inputs, 3, rate) for rate in (12, 24, 36)), pool])
        self.project = unit(5 * 256, 1, 1)

    def forward(self, x):
        parts = [part(x) for part in self.convs]
        parts[-1] = F.interpolate(parts[-1], size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat(parts, 1))


class DeepLabV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ResNet(True, None, (False, True, True))
        head = (nn.Conv2d(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Conv2d(256, 21, 1))
        self.classifier = nn.Sequential(ASPP(2048), *head)

    def forward(self, x):
        scores = self.classifier(self.backbone(x))
        return F.interpolate(scores, size=x.shape[-2:], mode="bilinear", align_corners=False)


# --- pytorch-fid: Inception -------------------------------------------------------------------------------------------


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs, outputs, size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def _chain(owner, x, *names):
    for name in names:
        x = getattr(owner, name)(x)
    return x


def _mean(x):
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class MixedA(nn.Module):
    def __init__(self, inputs, pooled):
        super().__init__()
        self.branch1x1 = Unit(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Unit(inputs, 48, 1), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pooled, 1)

    def forward(self, x):
        double = _chain(self, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        five = _chain(self, x, "branch5x5_1", "branch5x5_2")
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_mean(x))], 1)


class MixedB(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, 2)

    def forward(self, x):
        double = _chain(self, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    def __init__(self, width):
        super().__init__()
        row, column = {"size": (1, 7), "padding": (0, 3)}, {"size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Unit(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Unit(768, width, 1), Unit(width, width, **row)
        self.branch7x7_3 = Unit(width, 192, **column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(768, width, 1), Unit(width, width, **column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Unit(width, width, **row), Unit(width, width, **column)
        self.branch7x7dbl_5 = Unit(width, 192, **row)
        self.branch_pool = Unit(768, 192, 1)

    def forward(self, x):
        seven = _chain(self, x, *(f"branch7x7_{i}" for i in range(1, 4)))
        double = _chain(self, x, *(f"branch7x7dbl_{i}" for i in range(1, 6)))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean(x))], 1)


class MixedD(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(768, 192, 1), Unit(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Unit(768, 192, 1), Unit(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3, self.branch7x7x3_4 = Unit(192, 192, (7, 1), padding=(3, 0)), Unit(192, 192, 3, 2)

    def forward(self, x):
        seven = _chain(self, x, *(f"branch7x7x3_{i}" for i in range(1, 5)))
        return torch.cat([_chain(self, x, "branch3x3_1", "branch3x3_2"), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    def __init__(self, inputs, maximum):
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = Unit(inputs, 320, 1)
        self.branch3x3_1 = Unit(inputs, 384, 1)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 448, 1), Unit(448, 384, 3, padding=1)
        for name in ("branch3x3_2", "branch3x3dbl_3"):
            setattr(self, f"{name}a", Unit(384, 384, (1, 3), padding=(0, 1)))
            setattr(self, f"{name}b", Unit(384, 384, (3, 1), padding=(1, 0)))
        self.branch_pool = Unit(inputs, 192, 1)

    def forward(self, x):
        three, double = self.branch3x3_1(x), _chain(self, x, "branch3x3dbl_1", "branch3x3dbl_2")
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else _mean(x)
        return torch.cat([*parts, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """pytorch-fid's network: images in [0, 1] of any size -> 2048 features."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Unit(3, 32, 3, 2), Unit(32, 32, 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Unit(32, 64, 3, padding=1), Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (MixedC(w) for w in (128, 160, 160, 192))
        self.Mixed_7a = MixedD()
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, False), MixedE(2048, True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
        x = F.max_pool2d(_chain(self, x, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"), 3, 2)
        x = F.max_pool2d(_chain(self, x, "Conv2d_3b_1x1", "Conv2d_4a_3x3"), 3, 2)
        names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
        return _chain(self, x, *(f"Mixed_{name}" for name in names)).mean((2, 3))


# --- EfficientNet-Lite0 (efficientnet_pytorch's names) ----------------------------------------------------------------


def _same(x, size, stride):
    """TensorFlow's SAME padding."""
    total = [max((math.ceil(n / stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
    return F.pad(x, [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2])


class LiteBlock(nn.Module):
    def __init__(self, size, stride, expansion, inputs, outputs):
        super().__init__()
        self.size, self.stride, self.residual = size, stride, stride == 1 and inputs == outputs
        width, self.expands = inputs * expansion, expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(width, width, size, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self._project_conv, self._bn2 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(_same(y, self.size, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """Input: (pixel - 127) / 128."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        rows = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
        for repeats, size, stride, expansion, width in (*rows, (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)):
            for i in range(repeats):
                blocks.append(LiteBlock(size, stride if i == 0 else 1, expansion, inputs, width))
                inputs = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(_same(x, 3, 2))))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


# --- dlib's face recognition ResNet (face-api's names) ----------------------------------------------------------------


def face_embedding(tensors: dict, quantization: dict, x: torch.Tensor) -> torch.Tensor:
    """Scaled images through the network in float64; quantised tensors are value * scale + minimum."""
    real = {}
    for name, value in tensors.items():
        scale, minimum = quantization.get(name, (1.0, 0.0))
        real[name] = torch.from_numpy(value.astype("float64") * scale + minimum)

    def conv(name, x, stride, padding):
        kernel, bias = real[f"{name}/conv/filters"].permute(3, 2, 0, 1), real[f"{name}/conv/bias"]
        y = F.conv2d(x, kernel, bias, stride, padding)
        return y * real[f"{name}/scale/weights"][:, None, None] + real[f"{name}/scale/biases"][:, None, None]

    x = F.max_pool2d(F.relu(conv("conv32_down", x.double(), 2, 0)), 3, 2)
    units = {
        "conv32": (1, 2, 3),
        "conv64": ("down", 1, 2, 3),
        "conv128": ("down", 1, 2),
        "conv256": ("down", 1, 2, "down_out"),
    }
    for name in (f"{group}_{unit}" for group, members in units.items() for unit in members):
        if "down" not in name:
            x = F.relu(x + conv(f"{name}/conv2", F.relu(conv(f"{name}/conv1", x, 1, 1)), 1, 1))
            continue
        y = conv(f"{name}/conv2", F.relu(conv(f"{name}/conv1", x, 2, 0)), 1, 1)
        pooled = F.avg_pool2d(x, 2, 2)
        size, channels = max(y.shape[-1], pooled.shape[-1]), max(y.shape[1], pooled.shape[1])
        total = x.new_zeros(len(x), channels, size, size)
        for part in (y, pooled):
            total[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
        x = F.relu(total)
    return x.mean((2, 3)) @ real["fc"]
