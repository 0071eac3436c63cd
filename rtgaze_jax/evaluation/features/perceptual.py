"""A perceptual distance for losses and metrics: EfficientNet-Lite0 as shipped, or VGG16 from the user's file."""

import os

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features.layers import Params
from rtgaze_jax.evaluation.features.lite0 import lite0_perceptual
from rtgaze_jax.evaluation.features.vgg import vgg_perceptual
from rtgaze_jax.weights import io

_NETWORKS = {"efficientnet_lite0": lite0_perceptual, "vgg16": vgg_perceptual}


@flax.struct.dataclass
class Perceptual:
    """A fixed feature network as a distance between images; a pytree, so it can be an argument of a jitted function."""

    params: Params
    kind: str = flax.struct.field(pytree_node=False)

    def features(self, images: Float[Array, "b h w 3"], *, dtype: jnp.dtype = jnp.float32) -> list[Array]:
        """Channel-normalised feature maps of images in [-1, 1], finest first."""
        return _NETWORKS[self.kind](self.params, images, dtype=dtype)

    def __call__(
        self,
        first: Float[Array, "b h w 3"],
        second: Float[Array, "b h w 3"],
        weight: Float[Array, "b h w"] | None = None,
        *,
        dtype: jnp.dtype = jnp.float32,
    ) -> Float[Array, "b"]:
        """The distance of each pair: per level, the squared feature difference averaged over pixels; then the mean of
        levels.

        Args:
            first, second: images in [-1, 1]; both are differentiated through (stop the target's gradient outside).
            weight: how much each pixel counts (a face mask, say); it is averaged down to each level.
            dtype: of the network's computation.
        """
        both = self.features(jnp.concatenate([first, second]), dtype=dtype)
        levels = []
        for features in both:
            a, b = jnp.split(features.astype(jnp.float32), 2)
            squared = jnp.sum(jnp.square(a - b), axis=-1)
            if weight is None:
                levels.append(squared.mean((1, 2)))
            else:
                small = jax.image.resize(weight.astype(jnp.float32), squared.shape, "linear")
                levels.append(jnp.sum(squared * small, (1, 2)) / jnp.maximum(jnp.sum(small, (1, 2)), 1e-6))
        return jnp.mean(jnp.stack(levels), axis=0)


def load_perceptual(name_or_path: str | os.PathLike = "lite0") -> Perceptual:
    """The shipped Lite0 distance ("lite0"), or the one of a file written by `rtgaze weights convert`
    (efficientnet_lite0, vgg16).

    Raises UserError where the file is missing or of another kind.
    """
    path = io.SHIPPED / "lite0_features.safetensors" if name_or_path == "lite0" else name_or_path
    params, header = io.load(path)
    if header.get("kind") not in _NETWORKS:
        raise UserError(
            f"{path} is no perceptual network; write one with `rtgaze weights convert vgg16 FILE -o OUT`, or use"
            " 'lite0'"
        )
    return Perceptual(params, header["kind"])
