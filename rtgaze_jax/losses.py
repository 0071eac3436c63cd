"""Training losses: masked to the head, because the background is not modelled.

Every loss is a mean over the batch of values that each sample gives by itself. So the mean over the shards of a batch
is the loss of the whole batch, whichever way training is parallel. Images are float NHWC, masks are bool or weights.
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Mask = Bool[Array, "batch h w"] | Float[Array, "batch h w"]
Features = Callable[[Float[Array, "batch h w 3"]], Sequence[Float[Array, "batch _ _ _"]]]
"""Image to a list of feature maps, such as those of a frozen VGG16."""

FACE_WEIGHT, EYE_WEIGHT = 1.0, 2.0  # the paper's, in L_R

_SMALLEST_REGION = 1e-3
"""Share of the image below which a region's pixels no longer gain weight as the region shrinks."""


def masked_mean(values: Float[Array, "batch h w"], mask: Mask) -> Float[Array, ""]:
    """Mean over each sample's masked pixels, then over the batch.

    A region below a thousandth of the image counts in proportion to its size, down to nothing for an empty mask: the
    few pixels of a hidden eye must not outweigh a whole face.
    """
    mask = mask.astype(values.dtype)
    pixels = jnp.maximum(jnp.sum(mask, axis=(1, 2)), _SMALLEST_REGION * mask.shape[1] * mask.shape[2])
    # Outside a mask values may be anything, also infinite, and must not reach the gradient.
    return jnp.mean(jnp.sum(jnp.where(mask > 0, values, 0) * mask, axis=(1, 2)) / pixels)


def reconstruction_loss(
    image: Float[Array, "batch h w c"],
    target: Float[Array, "batch h w c"],
    face_mask: Mask,
    eye_mask: Mask,
    face_weight: float = FACE_WEIGHT,
    eye_weight: float = EYE_WEIGHT,
) -> Float[Array, ""]:
    """L_R: face_weight * L1 over the face without its eyes + eye_weight * L1 over the eyes, each its region's mean."""
    error = jnp.mean(jnp.abs(image - target), axis=-1)
    face = face_mask * (1 - eye_mask.astype(error.dtype))
    return face_weight * masked_mean(error, face) + eye_weight * masked_mean(error, eye_mask)


def depth_loss(depth: Float[Array, "batch h w"], target: Float[Array, "batch h w"], mask: Mask) -> Float[Array, ""]:
    """L_D: L1 between ray lengths (world units) where the mask holds and the target is known (above 0)."""
    return masked_mean(jnp.abs(depth - target), mask * (target > 0))


def opacity_loss(opacity: Float[Array, "batch h w"], mask: Mask) -> Float[Array, ""]:
    """L1 between a render's opacity and the silhouette, over the whole image."""
    return jnp.mean(jnp.abs(opacity - mask))


def gradient_loss(
    image: Float[Array, "batch h w c"],
    target: Float[Array, "batch h w c"],
    mask: Mask,
    scales: Sequence[int] = (1, 2, 4),
) -> Float[Array, ""]:
    """L1 between differences of pixels some distances (`scales`, pixels) apart, in x and y, mean over all of them.

    It keeps edges sharp where plain L1 is content with their average. A pair counts if both of its pixels are masked.
    """
    error = image - target
    terms = []
    for scale in scales:
        for near, far in (
            (jnp.s_[:, :, scale:], jnp.s_[:, :, :-scale]),
            (jnp.s_[:, scale:], jnp.s_[:, :-scale]),
        ):
            difference = jnp.mean(jnp.abs(error[near] - error[far]), axis=-1)
            terms.append(masked_mean(difference, mask[near] * mask[far]))
    return jnp.mean(jnp.stack(terms))


def perceptual_loss(
    features: Features, image: Float[Array, "batch h w 3"], target: Float[Array, "batch h w 3"], mask: Mask
) -> Float[Array, ""]:
    """L_P: L1 between the feature maps of the masked images, the sum over maps of their means.

    `features` sees what the caller passes, times the mask (so zero outside it).
    """
    mask = mask[..., None].astype(image.dtype)
    pairs = zip(features(image * mask), features(target * mask), strict=True)
    return jnp.sum(jnp.stack([jnp.mean(jnp.abs(a - b)) for a, b in pairs]))


def total_loss(terms: Mapping[str, Float[Array, ""]], weights: Mapping[str, float]) -> Float[Array, ""]:
    """Weighted sum of named terms; the paper's is L_R + L_D + 0.8 L_P (training/terms.py has the weights).

    Raises:
        ValueError: a term without a weight or a weight without a term; nothing is left out in silence.
    """
    if terms.keys() != weights.keys():
        raise ValueError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ: name the same ones in both")
    return jnp.sum(jnp.stack([weights[name] * terms[name] for name in weights]))
