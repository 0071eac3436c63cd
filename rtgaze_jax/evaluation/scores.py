"""What is measured on each pair: a prediction against the truth, images uint8 and white outside the head.

SCORES names the figures of one pair (float, NaN where there is nothing to measure); FEATURES are the vectors from which
figures of whole sets come: features of Frechet distances and positions of irises.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rtgaze_jax.data.labels import camera_gaze, gaze_vector, head_gaze_vector, project
from rtgaze_jax.data.record import PARTS
from rtgaze_jax.evaluation import metrics
from rtgaze_jax.evaluation.features.distances import (
    face_embeddings,
    inception_features,
    lite0_features,
    lpips_vgg,
    perceptual_lite0,
)
from rtgaze_jax.evaluation.gaze import Directions, Estimator
from rtgaze_jax.evaluation.protocol import Batch
from rtgaze_jax.geometry.camera import WORLD_UNIT_MM

SCORES = (
    "gaze_error_deg",  # estimator on the prediction against estimator on the truth, as in the lineage
    "gaze_error_label_deg",  # estimator on the prediction against the label
    "head_error_deg",  # estimator on the prediction against estimator on the truth
    "estimator_error_deg",  # estimator on the truth against the label: what all gaze errors contain
    "estimator_head_error_deg",
    "psnr_face",  # over the head
    "psnr_eyes",  # over the visible eyeballs
    "psnr",  # over the whole image, white background included, as in the lineage
    "ssim",
    "l1",
    "identity",  # cosine of dlib's face embeddings
    "perceptual_lite0",
    "depth_error_mm",
    "consistency_3d",  # dB: the prediction against another view of the same result, warped by the depth
)
FEATURES = ("lite0", "iris")


@dataclasses.dataclass(frozen=True)
class References:
    """Converted networks that the package cannot ship ('rtgaze weights convert'): with vgg16 there is a score "lpips",
    with inception features "inception" for the FID."""

    vgg16: str | os.PathLike | None = None
    inception: str | os.PathLike | None = None


NO_REFERENCES = References()

# Points of a face relative to its eyes, in distances between the eyeballs' centres (x to the subject's left, y up, z
# out of the face): left eye outer and inner corner, right eye outer and inner corner, base of the nose.
_FACE_POINTS = np.array(
    [[0.72, -0.01, 0.08], [0.28, -0.04, 0.12], [-0.72, -0.01, 0.08], [-0.28, -0.04, 0.12], [0.0, -0.79, 0.45]]
)
_EYE_SHARE = 2e-4  # of the image's pixels: a smaller visible eyeball has no centroid worth the name


def whiten(images: UInt8[np.ndarray, "b S S 3"], mask: np.ndarray) -> UInt8[np.ndarray, "b S S 3"]:
    """White outside the mask."""
    return np.where(mask[..., None], images, np.uint8(255))


def face_points(eye_centers: Float[np.ndarray, "b 2 3"], camera: Float[np.ndarray, "b 25"], size: int) -> np.ndarray:
    """The five points of features/identity.py in pixels [b, 5, 2], from the eyes alone: the same for every method."""
    middle = eye_centers.mean(1, keepdims=True)
    across = np.linalg.norm(eye_centers[:, 0] - eye_centers[:, 1], axis=-1)[:, None, None]
    points = middle + _FACE_POINTS * across
    return np.stack([project(p, *_matrices(c))[0] for p, c in zip(points, camera, strict=True)]) * size


def eye_positions(batch: Batch, which: str = "target") -> Float[np.ndarray, "b 2 2"]:
    """Where the eyeballs' centres are in the source or target images, normalised."""
    pairs = zip(batch["eye_centers"], batch[f"{which}_camera"], strict=True)
    return np.stack([project(eyes, *_matrices(camera))[0] for eyes, camera in pairs]).astype(np.float32)


def labels(batch: Batch) -> Directions:
    """The targets' true directions in their cameras' axes, unit vectors [b, 3]."""
    gaze, head = head_gaze_vector(batch["target_gaze"]), np.array([0.0, 0.0, 1.0])
    turn = lambda v, c: gaze_vector(camera_gaze(v, _matrices(c)[0]))  # noqa: E731
    pairs = list(zip(gaze, batch["target_camera"], strict=True))
    return {"gaze": np.stack([turn(g, c) for g, c in pairs]), "head": np.stack([turn(head, c) for _, c in pairs])}


def truth_of(batch: Batch, estimator: Estimator, references: References = NO_REFERENCES) -> dict[str, Any]:
    """Everything about the targets that does not depend on a prediction: computed once for all methods."""
    image = whiten(batch["target_image"], batch["target_face_mask"])
    eyes = eye_positions(batch)
    points = face_points(batch["eye_centers"], batch["target_camera"], image.shape[1])
    extra = {"inception": inception_features(image, references.inception)} if references.inception else {}
    return extra | {
        "image": image,
        "eyes": eyes,
        "points": points,
        "labels": labels(batch),
        "estimate": estimator(image, eyes),
        "embedding": face_embeddings(image, points),
        "lite0": lite0_features(image),
        "iris": np.asarray(iris_positions(image, batch["target_parts"])),
    }


def score(
    prediction: dict[str, np.ndarray],
    batch: Batch,
    truth: dict[str, Any],
    estimator: Estimator,
    references: References = NO_REFERENCES,
) -> dict[str, np.ndarray]:
    """All SCORES [b] and FEATURES [b, ...] of predictions: image uint8, and optionally depth and consistency_3d."""
    image = whiten(prediction["image"], batch["target_face_mask"])
    found = estimator(image, truth["eyes"])
    embedding = face_embeddings(image, truth["points"])
    nothing = np.full(len(image), np.nan)
    values = {
        "gaze_error_deg": _angle(found["gaze"], truth["estimate"]["gaze"]),
        "gaze_error_label_deg": _angle(found["gaze"], truth["labels"]["gaze"]),
        "head_error_deg": _angle(found["head"], truth["estimate"]["head"]),
        "estimator_error_deg": _angle(truth["estimate"]["gaze"], truth["labels"]["gaze"]),
        "estimator_head_error_deg": _angle(truth["estimate"]["head"], truth["labels"]["head"]),
        "identity": _cosine(embedding, truth["embedding"]),
        "perceptual_lite0": perceptual_lite0(image, truth["image"]),
        "depth_error_mm": nothing,
        "consistency_3d": prediction.get("consistency_3d", nothing),
        "lite0": lite0_features(image),
        "iris": iris_positions(image, batch["target_parts"]),
    }
    if references.vgg16:
        values["lpips"] = lpips_vgg(image, truth["image"], references.vgg16)
    if references.inception:
        values["inception"] = inception_features(image, references.inception)
    if "depth" in prediction:
        known = batch["target_face_mask"] & (batch["target_depth"] > 0)
        error = np.abs(prediction["depth"] - batch["target_depth"].astype(np.float32)) * WORLD_UNIT_MM
        mean = (error * known).sum((1, 2)) / np.maximum(known.sum((1, 2)), 1)
        values["depth_error_mm"] = np.where(known.any((1, 2)), mean, np.nan)
    pixels = _pixel_scores(image, truth["image"], batch["target_face_mask"], batch["target_eye_mask"])
    return {name: np.asarray(value) for name, value in (values | pixels).items()}


@jax.jit
def _pixel_scores(image, truth, face, eyes):
    a, b = (x.astype(jnp.float32) / 255 for x in (image, truth))
    return {
        "psnr_face": metrics.masked_psnr(a, b, face),
        "psnr_eyes": metrics.masked_psnr(a, b, eyes),
        "psnr": metrics.psnr(a, b),
        "ssim": metrics.ssim(a, b),
        "l1": jnp.abs(a - b).mean((1, 2, 3)),
    }


@jax.jit
def iris_positions(image: UInt8[Array, "b S S 3"], parts: UInt8[Array, "b S S"]) -> Float[Array, "b 2 2"]:
    """Where the iris is in each visible eyeball: the centroid of what is darker than the mean, relative to the
    centroid of all its pixels, so that an eye of one colour says 0.

    Normalised image coordinates, eyes in the order (left, right); NaN for an eye that is hardly visible.
    """
    grey = image.astype(jnp.float32).mean(-1) / 255
    line = (jnp.arange(image.shape[1]) + 0.5) / image.shape[1]
    found = []

    def centroid(weight: Float[Array, "b S S"]) -> Float[Array, "b 2"]:
        total = jnp.maximum(weight.sum((1, 2)), 1e-9)
        return jnp.stack([(weight.sum(1) * line).sum(-1), (weight.sum(2) * line).sum(-1)], -1) / total[:, None]

    for part in (PARTS.left_eye, PARTS.right_eye):
        ball = (parts == int(part)).astype(jnp.float32)
        pixels = ball.sum((1, 2))
        mean = (grey * ball).sum((1, 2)) / jnp.maximum(pixels, 1)
        dark = jnp.maximum(mean[:, None, None] - grey, 0) * ball
        blank = (dark.sum((1, 2)) < 1e-3 * pixels)[:, None]
        offset = jnp.where(blank, 0.0, centroid(dark) - centroid(ball))
        found.append(jnp.where((pixels > _EYE_SHARE * parts[0].size)[:, None], offset, jnp.nan))
    return jnp.stack(found, 1)


def second_difference(frames: Float[np.ndarray, "t ..."]) -> Float[np.ndarray, "..."]:
    """Mean absolute second difference over time: 0 for a sequence that changes at constant speed."""
    frames = np.asarray(frames, np.float32)
    return np.abs(frames[:-2] - 2 * frames[1:-1] + frames[2:]).mean(0)


def _matrices(camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
