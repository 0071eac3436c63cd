"""The terms that the objectives add up, each a mean over the examples of a batch."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtgaze_jax import losses
from rtgaze_jax.data.record import PARTS
from rtgaze_jax.evaluation.features import Perceptual
from rtgaze_jax.geometry.camera import (
    frontal_camera,
    project,
    scale_of,
    source_frame,
    transform_camera,
    unpack_camera,
)
from rtgaze_jax.geometry.gaze import gaze_from_world, gaze_to_vector, head_gaze_to_vector, vector_angle_deg
from rtgaze_jax.models.config import ModelConfig
from rtgaze_jax.models.crops import per_eye
from rtgaze_jax.models.discriminator import EyeDiscriminator
from rtgaze_jax.models.estimator import EstimatorConfig, estimate
from rtgaze_jax.models.eyes import take_patches
from rtgaze_jax.models.layers import grow
from rtgaze_jax.models.portrait import PortraitGenerator

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; 0 switches a term off. The defaults are the paper's: L_R + L_D + 0.8 L_P, eyes twice the
    face."""

    image: float = 1.0  # masked L1
    eye_region: float = losses.EYE_WEIGHT  # weight of eye pixels in it
    depth: float = 1.0
    perceptual: float = 0.8
    raw: float = 0.0  # L1 of the low-resolution rendering
    opacity: float = 0.0
    gradient: float = 0.0  # multi-scale image gradients
    pose: float = 0.1  # trains the pose head alone
    eye_image: float = 0.0  # the eye branch's patches: L1 of the refined colours
    eye_raw: float = 0.0
    eye_depth: float = 0.0
    eye_gradient: float = 0.0
    eye_perceptual: float = 0.0
    gaze: float = 0.0  # the direction that a frozen estimator reads from the image, against the label
    adversarial: float = 0.0  # eye patches against models/discriminator.py
    gradient_penalty: float = 1.0  # of the discriminator at real patches

    def of(self, terms: dict[str, Array]) -> dict[str, float]:
        """The weight of each term; the critic's own loss moves the critic alone and has weight 1."""
        return {name: getattr(self, name, 1.0) for name in terms}

    @property
    def any_eyes(self) -> bool:
        """Whether the eye branch is trained at all."""
        terms = (self.eye_image, self.eye_raw, self.eye_depth, self.eye_gradient, self.eye_perceptual, self.adversarial)
        return any(terms)

    def eyes_only(self) -> "LossWeights":
        """The eye branch and the pose head alone: what a CPU can train."""
        off = dict.fromkeys(("image", "depth", "perceptual", "raw", "opacity", "gradient", "eye_perceptual"), 0.0)
        return dataclasses.replace(self, **off)


SMALL_WEIGHTS = LossWeights(
    eye_region=2.0,
    depth=2.0,
    perceptual=0.2,
    raw=0.5,
    opacity=0.3,
    gradient=0.5,
    pose=1.0,
    eye_image=5.0,
    eye_raw=2.5,
    eye_depth=2.0,
    eye_gradient=1.5,
    eye_perceptual=0.5,
)


def pose_loss(pose: dict[str, Array], batch: dict[str, Array]) -> tuple[Array, Metrics]:
    """L1 of the pose head's outputs; metrics are mean errors in world units."""
    rotation = jnp.abs(pose["rotation"] - batch["source_rotation"]).mean()
    position = jnp.abs(pose["position"] - batch["source_position"]).mean()
    miss = jnp.abs(pose["eyes"] - batch["source_eyes"])
    eyes = miss[..., :2].mean() * 20 + miss[..., 2].mean()  # sideways errors move the crop, others matter less
    gaze = jnp.abs(pose["gaze"] - batch["source_view_gaze"]).mean()
    return rotation + position + eyes + gaze, {
        "pose/eyes": miss[..., :2].mean(),
        "pose/rotation": rotation,
        "pose/gaze": gaze,
    }


def teacher_depth(
    portrait: PortraitGenerator, params: Any, batch: dict[str, Array], frame: str
) -> Float[Array, "B R R"]:
    """The frozen teacher's depth: it sees the frontal image of the person with the target gaze, rendered at the target
    camera."""
    frontal, target = batch["frontal_camera"], batch["target_camera"]
    scale = jnp.ones(len(frontal))
    if frame == "source":  # the teacher's world has its own source in front
        move = source_frame(frontal, batch["eye_centers"])
        frontal, target, scale = transform_camera(move, frontal), transform_camera(move, target), scale_of(move)
    out: Any = portrait.apply({"params": params}, batch["frontal_image"] * 2 - 1, frontal, target)
    return jax.lax.stop_gradient(out["depth"] / scale[:, None, None])


def at_rays(image: Float[Array, "B S S"], rays: int) -> Float[Array, "B R R"]:
    """The pixel nearest to each ray of a lower resolution: labels such as depth must not be averaged over edges."""
    step = image.shape[1] // rays
    return image[:, step // 2 :: step, step // 2 :: step]


def image_terms(
    out: dict[str, Array],
    batch: dict[str, Array],
    depth: Float[Array, "B D D"],
    weights: LossWeights,
    perceptual: Perceptual | None,
    dtype: jnp.dtype,
) -> tuple[dict[str, Array], Metrics]:
    """The paper's L_R, L_D and L_P on the whole image, and the optional low-resolution, opacity and gradient terms."""
    face, eyes, target = batch["target_face_mask"], batch["target_eye_mask"], batch["target_image"]
    image, rays = (out["base"] + 1) / 2, out["raw"].shape[1]
    small = at_rays(face, rays)
    terms: dict[str, Array] = {}
    metrics: Metrics = {}
    if weights.image:
        terms["image"] = losses.reconstruction_loss(image, target, face, eyes, losses.FACE_WEIGHT, weights.eye_region)
        error = losses.masked_mean(jnp.square(jnp.clip(image, 0, 1) - target).mean(-1), face)
        metrics["psnr_face"] = -10 * jnp.log10(error + 1e-8)
    if weights.depth:
        wanted = at_rays(depth, rays)
        terms["depth"] = losses.depth_loss(out["coarse_depth"], wanted, small * (wanted > 0))
    if weights.raw:
        shrunk = jax.image.resize(target * face[..., None], (*out["raw"].shape,), "linear")
        inside = jax.image.resize(face, small.shape, "linear")  # averaged over the pixels of a ray, as the target is
        terms["raw"] = losses.reconstruction_loss(out["raw"] * inside[..., None], shrunk, small, at_rays(eyes, rays))
    if weights.opacity:
        terms["opacity"] = losses.opacity_loss(out["opacity"], small)
    if weights.gradient:
        terms["gradient"] = losses.gradient_loss(image, target, face)
    if weights.perceptual and perceptual is not None:
        features = functools.partial(perceptual.features, dtype=dtype)
        terms["perceptual"] = losses.perceptual_loss(features, image * 2 - 1, target * 2 - 1, face)
    return terms, metrics


def eye_targets(eyes: dict[str, Array], batch: dict[str, Array], patch: tuple[int, int]) -> dict[str, Array]:
    """The truth under the eye patches: colours, depth, and weights that are zero where the eye is hidden in the target
    view."""
    cut = lambda name: take_patches(batch[name], eyes["origins"], patch)  # noqa: E731
    parts = cut("target_parts")
    ball = ((parts == int(PARTS.left_eye)) | (parts == int(PARTS.right_eye))).astype(jnp.float32)
    area = patch[0] * patch[1]
    seen = (ball.sum((2, 3), keepdims=True) > 0.01 * area).astype(jnp.float32)
    weight = cut("target_face_mask") * seen * (1 + 2 * ball)
    return {
        "image": cut("target_image"),
        "depth": cut("target_depth"),
        "weight": weight,
        "seen": seen[:, :, 0, 0],
    }


def eye_terms(
    eyes: dict[str, Array],
    batch: dict[str, Array],
    weights: LossWeights,
    perceptual: Perceptual | None,
    config: ModelConfig,
) -> tuple[dict[str, Array], Metrics]:
    """The eye branch's terms, on its patches."""
    truth = eye_targets(eyes, batch, config.eyes.patch)
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    weight, target, image = flat(truth["weight"]), flat(truth["image"]), flat(eyes["patches"])
    depth = flat(truth["depth"])  # 0 where it is unknown: data of real people
    l1 = lambda x: losses.masked_mean(jnp.abs(x - target).mean(-1), weight)  # noqa: E731
    terms = {
        "eye_image": l1(image),
        "eye_raw": l1(flat(eyes["raw"])),
        "eye_depth": losses.depth_loss(flat(eyes["depth"]), depth, weight * (depth > 0)),
        "eye_gradient": losses.gradient_loss(image, target, weight),
    }
    if weights.eye_perceptual and perceptual is not None:
        # twice the size: the first features halve the resolution, and lashes are a pixel wide
        double = lambda x: grow(x * 2 - 1)  # noqa: E731
        features = functools.partial(perceptual.features, dtype=jnp.dtype(config.dtype))
        mask = grow(jnp.minimum(weight, 1.0)[..., None])[..., 0]
        terms["eye_perceptual"] = losses.perceptual_loss(features, double(image), double(target), mask)
    error = losses.masked_mean(jnp.square(jnp.clip(image, 0, 1) - target).mean(-1), weight)
    return terms, {"psnr_eyes": -10 * jnp.log10(error / jnp.maximum(truth["seen"].mean(), 1e-3) + 1e-8)}


def gaze_term(
    image: Float[Array, "B S S 3"], batch: dict[str, Array], params: Any, config: EstimatorConfig
) -> tuple[Array, Metrics]:
    """Mean chord between the label and the direction that a frozen estimator reads from the image (in [-1, 1]), which
    it sees as evaluation does: white outside the face, eyes where the labels say."""
    camera, mask = batch["target_camera"], batch["target_face_mask"][..., None]
    seen = jnp.clip((image + 1) / 2, 0, 1) * mask + 1 - mask
    eyes, _ = project(batch["eye_centers"], camera)
    label = gaze_to_vector(gaze_from_world(head_gaze_to_vector(batch["prompt"]), unpack_camera(camera)[0]))
    read = estimate(jax.lax.stop_gradient(params), config, seen, eyes)["gaze"]
    chord = jnp.sqrt(jnp.square(read - label).sum(-1) + 1e-6).mean()
    return chord, {"gaze_error_degrees": vector_angle_deg(read, label).mean()}


def adversarial_terms(
    critic: EyeDiscriminator,
    params: Any,
    eyes: dict[str, Array],
    batch: dict[str, Array],
    weights: LossWeights,
    config: ModelConfig,
) -> dict[str, Array]:
    """Hinge losses of patches and critic in one sum: each sees the other's parameters through a stop_gradient."""
    truth = eye_targets(eyes, batch, config.eyes.patch)
    mask = jnp.minimum(truth["weight"], 1.0)[..., None]

    def as_left(x: Array) -> Array:  # [B, 2, h, w, 3] -> [2B, h, w, 3], right eyes mirrored
        return jnp.stack([x[:, 0], x[:, 1, :, ::-1]], 1).reshape(-1, *x.shape[2:])

    gaze = per_eye(batch["prompt"])
    seen = truth["seen"].reshape(-1, 1, 1)
    # per example, so that the loss does not depend on how a batch is cut
    mean = lambda x: (x * seen).mean()  # noqa: E731

    def judge(weights: Any, patches: Array) -> Array:
        return jnp.asarray(critic.apply({"params": weights}, patches, gaze))

    fake, real = as_left(eyes["patches"] * mask), as_left(truth["image"] * mask)
    generator = -mean(judge(jax.lax.stop_gradient(params), fake))
    on_real, pull = jax.vjp(lambda x: judge(params, x), real)
    discriminator = mean(jax.nn.relu(1 - on_real)) + mean(jax.nn.relu(1 + judge(params, jax.lax.stop_gradient(fake))))
    slope = pull(jnp.ones_like(on_real) / on_real[0].size)[0]
    penalty = (jnp.square(slope).sum((1, 2, 3)) * seen[:, 0, 0]).mean()
    return {
        "adversarial": generator,
        "critic": discriminator + weights.gradient_penalty * penalty,
    }


def eye_error(pose: dict[str, Array], batch: dict[str, Array]) -> Float[Array, ""]:
    """Mean distance in the image, in image widths, between predicted and true eye centres."""
    camera = frontal_camera()[None]
    predicted, truth = (project(x, camera)[0] for x in (pose["eyes"], batch["source_eyes"]))
    return jnp.linalg.norm(predicted - truth, axis=-1).mean()
