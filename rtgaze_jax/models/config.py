"""What a network is made of, and the three presets. Plain data: the configs, the weights' headers and the modules all
read it."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The hybrid-frequency encoder, in LP3D's terms. `grid` features live at image_size / pool / stride."""

    stride: int = 2  # of the high-frequency branch, the fused features and the triplane, in pixels it sees
    pool: int = 1  # the encoder sees the image shrunk by this factor
    stem: int = 64
    stages: tuple[int, ...] = (3, 4, 6, 3)  # ResNet-34
    widths: tuple[int, ...] = (64, 128, 256, 512)
    aspp: int = 256
    vit_dim: int = 1024
    vit_depth: int = 5
    vit_heads: int = 4
    low_widths: tuple[int, ...] = (128, 128)  # while growing back to the grid
    low: int = 96  # channels of F
    high_widths: tuple[int, ...] = (64, 96, 96, 96, 96)
    fuse_widths: tuple[int, ...] = (256, 128)
    fuse_dim: int = 1024
    fuse_heads: int = 2
    fuse_reduction: int = 2  # spatial reduction of keys and values
    out_widths: tuple[int, ...] = (256, 128, 128)


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Gaze prompt: `tokens` tokens of `dim`, read by cross-attention."""

    tokens: int = 64
    dim: int = 512
    heads: int = 4
    blocks: int = 1
    inject: Literal["high", "low"] = "high"


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Volume rendering. Lengths are world units; start and end are offsets from the camera's distance to the origin."""

    plane_channels: int = 32
    axes: Literal["true", "eg3d"] = "true"
    box: float = 1.0  # side of the cube that the planes span
    start: float = -0.45
    end: float = 0.6
    resolution: int = 128  # rays per side
    coarse: int = 48
    fine: int = 48
    merge: bool = True  # EG3D's union of both passes; False: the fine samples alone
    hidden: int = 64
    features: int = 32
    density_scale: float = 1.0
    density_shift: float = 0.0  # below 0 an untrained field is thin, and hides nothing behind it
    superres: tuple[int, ...] = (256, 128)
    skip: bool = False  # source pixels reprojected by the rendered depth


@dataclasses.dataclass(frozen=True)
class EyeConfig:
    """Eye-local triplanes and the rays over the eyes at output resolution."""

    enabled: bool = False
    box: float = 0.14  # world units, the side of the cube around an eyeball's centre
    crop: int = 128  # source pixels per side of the crop that spans the box
    widths: tuple[int, ...] = (48, 96, 192)
    condition: int = 192
    plane_channels: int = 16
    plane_stride: int = 2  # planes have crop / plane_stride texels a side
    patch: tuple[int, int] = (80, 112)  # rays: rows, columns
    near: float = -0.08  # offsets from the eye centre's depth along each ray
    far: float = 0.035
    samples: int = 20
    shared: bool = True  # the field reads the global planes too (without a gradient into them)
    hidden: int = 64
    features: int = 24
    refine: int = 48
    skip: bool = False  # the refinement sees the source's pixels, reprojected by the eye's rendered depth


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole network. `frame` is the world of triplane and prompt: "head" axes, or "source": the source camera is the
    frontal one, and the eyes tell the scale (geometry.camera.source_frame)."""

    preset: str = "paper"
    image_size: int = 512
    frame: Literal["head", "source"] = "head"
    dtype: str = "bfloat16"
    encoder: EncoderConfig = EncoderConfig()
    pose_width: int = 12  # of the pose head; its other widths are multiples
    pose_view: int = 128  # side of the shrunk image it looks at
    prompt: PromptConfig = PromptConfig()
    render: RenderConfig = RenderConfig()
    eyes: EyeConfig = EyeConfig()


_SMALL_ENCODER = EncoderConfig(
    pool=2,
    stride=4,
    stem=32,
    stages=(1, 1, 1, 1),
    widths=(32, 64, 96, 128),
    aspp=128,
    vit_dim=256,
    vit_depth=4,
    vit_heads=4,
    low_widths=(96,),
    low=64,
    high_widths=(48, 64, 64, 64),
    fuse_widths=(96, 96),
    fuse_dim=256,
    fuse_heads=4,
    fuse_reduction=4,
    out_widths=(128, 96),
)
_TINY_ENCODER = EncoderConfig(
    stride=4,
    stem=8,
    stages=(1, 1),
    widths=(8, 16),
    aspp=16,
    vit_dim=32,
    vit_depth=1,
    vit_heads=2,
    low_widths=(16,),
    low=16,
    high_widths=(8, 16),
    fuse_widths=(16, 16),
    fuse_dim=32,
    fuse_heads=2,
    fuse_reduction=4,
    out_widths=(24, 16),
)

_SMALL = ModelConfig(
    preset="small",
    frame="source",
    encoder=_SMALL_ENCODER,
    prompt=PromptConfig(tokens=16, dim=128, heads=4),
    render=RenderConfig(
        plane_channels=24,
        box=0.8,
        start=-0.36,
        end=0.5,
        coarse=14,
        fine=18,
        merge=False,
        features=24,
        density_scale=30.0,
        superres=(48, 24),
        skip=True,
    ),
    eyes=EyeConfig(enabled=True, shared=False, skip=True),
)


def _smaller(name: str, size: int, samples: int) -> ModelConfig:
    """The same weights at a lower resolution: whatever counts pixels shrinks, so training starts many times cheaper."""
    part = size / _SMALL.image_size
    rows, columns = _SMALL.eyes.patch
    return dataclasses.replace(
        _SMALL,
        preset=name,
        image_size=size,
        encoder=dataclasses.replace(_SMALL_ENCODER, pool=1),
        render=dataclasses.replace(_SMALL.render, resolution=round(_SMALL.render.resolution * part)),
        eyes=dataclasses.replace(
            _SMALL.eyes,
            crop=round(_SMALL.eyes.crop * part),
            patch=(round(rows * part), round(columns * part)),
            samples=samples,
        ),
    )


PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(),
    "small": _SMALL,
    "small_256": _smaller("small_256", 256, 16),
    "small_128": _smaller("small_128", 128, 12),
    "tiny": ModelConfig(
        preset="tiny",
        image_size=64,
        frame="source",
        dtype="float32",
        encoder=_TINY_ENCODER,
        pose_width=4,
        pose_view=64,
        prompt=PromptConfig(tokens=4, dim=16, heads=2),
        render=RenderConfig(
            plane_channels=8,
            box=0.8,
            start=-0.36,
            end=0.5,
            resolution=16,
            coarse=6,
            fine=8,
            merge=False,
            hidden=16,
            features=8,
            density_scale=30.0,
            density_shift=-3.0,
            superres=(8, 8),
            skip=True,
        ),
        eyes=EyeConfig(
            enabled=True,
            crop=16,
            widths=(8, 16),
            condition=16,
            plane_channels=4,
            patch=(10, 14),
            samples=6,
            hidden=16,
            features=8,
            refine=8,
            skip=True,
        ),
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset of that name ("tiny", "small_128", "small_256", "small" or "paper")."""
    return PRESETS[name]


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values (tuples as lists), for JSON and ml_collections."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def from_dict(values: Any) -> ModelConfig:
    """The inverse of to_dict; unknown keys raise TypeError. Accepts any nested mapping."""

    def build(kind: type, mapping: Any) -> Any:
        parts = {"encoder": EncoderConfig, "prompt": PromptConfig, "render": RenderConfig, "eyes": EyeConfig}
        known = {}
        for key, value in dict(mapping).items():
            if kind is ModelConfig and key in parts:
                known[key] = build(parts[key], value)
            else:
                known[key] = tuple(value) if isinstance(value, list | tuple) else value
        return kind(**known)

    return build(ModelConfig, values)
