"""The teacher: an LP3D-style portrait network, one image -> triplane, without a gaze prompt. Only its depth is
distilled."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.models.config import ModelConfig
from rtgaze_jax.models.encoder import HighEncoder, LowEncoder, TriplaneDecoder
from rtgaze_jax.models.renderer import TriplaneRenderer


class PortraitGenerator(nn.Module):
    """encode(image) -> scene; render(scene, camera) -> image, depth. `config.prompt` and `config.eyes` are not used."""

    config: ModelConfig

    def setup(self):
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.low = LowEncoder(c.encoder, dtype)
        self.high = HighEncoder(c.encoder, dtype)
        self.planes = TriplaneDecoder(c.encoder, c.render.plane_channels, dtype)
        self.renderer = TriplaneRenderer(c.render, dtype)

    def encode(self, image: Float[Array, "B S S 3"], source_camera: Float[Array, "B 25"]) -> dict[str, Array]:
        """`image` in [-1, 1]; `source_camera` in the weights' world frame. Returns the scene."""
        low, _ = self.low(image)
        return {"planes": self.planes(low, self.high(image)), "source": (image + 1) / 2, "source_camera": source_camera}

    def render(
        self, scene: dict[str, Array], camera: Float[Array, "B 25"], key: Array | None = None
    ) -> dict[str, Array]:
        """image [B, S, S, 3] in about [-1, 1]; raw in [0, 1], depth (ray length), opacity at the rays' resolution."""
        out = self.renderer(scene["planes"], camera, scene["source"], scene["source_camera"], key)
        return out | {"image": out["image"] * 2 - 1}

    def __call__(
        self,
        image: Float[Array, "B S S 3"],
        source_camera: Float[Array, "B 25"],
        camera: Float[Array, "B 25"],
        key: Array | None = None,
    ) -> dict[str, Array]:
        """encode and render."""
        return self.render(self.encode(image, source_camera), camera, key)
