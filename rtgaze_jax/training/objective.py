"""What is minimised: the student's and the teacher's objectives, pure functions of parameters, batch and key."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rtgaze_jax.data import transform
from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation.features import Perceptual, load_perceptual
from rtgaze_jax.evaluation.gaze import ESTIMATOR
from rtgaze_jax.geometry.camera import frontal_camera, scale_of, source_frame, transform_points, unpack_camera
from rtgaze_jax.geometry.gaze import gaze_from_world, head_gaze_to_vector
from rtgaze_jax.losses import total_loss
from rtgaze_jax.models.config import ModelConfig, from_dict, to_dict
from rtgaze_jax.models.discriminator import EyeDiscriminator
from rtgaze_jax.models.estimator import EstimatorConfig, config_from_dict
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.portrait import PortraitGenerator
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.training import terms as t
from rtgaze_jax.training.terms import LossWeights, Metrics
from rtgaze_jax.weights.io import load as load_weights
from rtgaze_jax.weights.io import read_header

MAX_GAZE_ERROR = 8.0
"""Degrees by which an estimator may err on its own training pictures to be trained against."""
_JITTER = np.array([1.0, 1.0, 2.0], np.float32)


@dataclasses.dataclass(frozen=True)
class Objective:
    """init(key) -> params (host arrays, not traced). loss(params, frozen, batch, key, step) -> (mean, metrics).

    `frozen`: arrays that the loss only reads. `batch` is data/pairs.py's plus `index` [B]; `needs`: what it must hold
    beyond the usual ("frontal": the teacher's image). `exports`: the group of parameters that users need, written with
    `header`. `images(params, frozen, batch, key)`: pictures for the log, {name: uint8 [H, W, 3]}.
    """

    init: Callable[[Array], Any]
    loss: Callable[[Any, Any, dict[str, Array], Array, Array], tuple[Array, Metrics]]
    images: Callable[[Any, Any, dict[str, Array], Array], dict[str, Array]]
    frozen: Any
    header: dict[str, Any]
    exports: str = "model"
    needs: tuple[str, ...] = ()


def header(config: ModelConfig, kind: str) -> dict[str, Any]:
    """What a weights file says of itself."""
    return {
        "kind": kind,
        "config": to_dict(config),
        "frame": config.frame,
        "licence": "Apache-2.0",
        "training_data": "gaze_heads (synthetic people, rtgaze_jax.data.heads, split train)",
        "gaze_range_degrees": [25, 40],
    }


def image_grid(columns: list[Float[Array, "B h w 3"]]) -> Array:
    """Pictures in [0, 1] side by side, an example a row, as uint8."""
    rows = jnp.concatenate([jnp.clip(x, 0, 1) for x in columns], 2)
    return (rows.reshape(-1, *rows.shape[2:]) * 255 + 0.5).astype(jnp.uint8)


def prepare(batch: dict[str, Array], frame: transform.Frame, key: Array | None) -> dict[str, Array]:
    """Integers to floats, augmentation (with a key), world frame. Adds what the pose head should say:
    `source_rotation` [B, 3, 3], `source_position` [B, 3], `source_eyes` [B, 2, 3] and `source_view_gaze` [B, 2]."""
    batch = transform.to_float(batch)
    if key is not None:
        batch = transform.augment(batch, key)
    move = source_frame(batch["source_camera"], batch["eye_centers"])
    camera_pose, _ = unpack_camera(batch["source_camera"])
    gaze = gaze_from_world(head_gaze_to_vector(batch["source_gaze"]), camera_pose)
    return transform.to_frame(batch, frame) | {
        "source_rotation": move[:, :3, :3] / scale_of(move)[:, None, None],
        "source_position": move[:, :3, 3],
        "source_eyes": transform_points(move, batch["eye_centers"]),
        "source_view_gaze": gaze,
    }


def student(
    config: ModelConfig,
    weights: LossWeights,
    *,
    perceptual: Perceptual | None = None,
    teacher: tuple[ModelConfig, Any] | None = None,
    estimator: tuple[EstimatorConfig, Any] | None = None,
    depth_source: str = "ground_truth",
    eye_jitter: float = 0.002,
    augment: bool = True,
) -> Objective:
    """The student's objective.

    perceptual: needed where a perceptual term is on; teacher: (config, params) for depth_source="teacher";
    "ground_truth" takes the data's depth, "none" leaves L_D out. estimator: (config, params), needed for the gaze term.
    eye_jitter: standard deviation, world units, of the eye centres the branch is given, twice as much in depth: in a
    photo landmarks tell where an eye is, and the pose head guesses which one is nearer.
    """
    if depth_source == "none":
        weights = dataclasses.replace(weights, depth=0.0)
    model = RTGaze(config)
    dtype = jnp.dtype(config.dtype)
    critic = EyeDiscriminator(dtype=dtype)
    frozen: dict[str, Any] = {}
    if perceptual is not None:
        frozen["perceptual"] = perceptual
    if depth_source == "teacher":
        if teacher is None:
            raise UserError("distill.source=teacher needs distill.teacher, a teacher's weights (configs/portrait.py)")
        frozen["teacher"] = teacher[1]
        portrait = PortraitGenerator(teacher[0])
    if weights.gaze:
        if estimator is None:
            raise UserError("losses.gaze needs gaze_estimator, weights of configs/estimator.py")
        frozen["estimator"] = estimator[1]

    def init(key: Array) -> Any:
        size = config.image_size
        image, camera = jnp.zeros((1, size, size, 3)), frontal_camera()[None]
        params = {"model": initialize(model, key, image, jnp.zeros((1, 2)), camera)}
        if weights.adversarial:
            patch = jnp.zeros((1, *config.eyes.patch, 3))
            params["critic"] = initialize(critic, jax.random.fold_in(key, 1), patch, jnp.zeros((1, 2)))
        return params

    def loss(params: Any, frozen: Any, batch: dict[str, Array], key: Array, step: Array) -> tuple[Array, Metrics]:
        batch = prepare(batch, config.frame, jax.random.fold_in(key, 1) if augment else None)
        keys = transform.example_keys(jax.random.fold_in(key, 2), batch)
        jitter = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 3), (2, 3)))(keys) * eye_jitter * _JITTER
        out: Any = model.apply(
            {"params": params["model"]},
            batch["source_image"] * 2 - 1,
            batch["prompt"],
            batch["target_camera"],
            batch["eye_centers"] + jitter,
            batch["source_camera"],
            keys,
        )
        depth = batch["target_depth"]
        if depth_source == "teacher":
            depth = t.teacher_depth(portrait, frozen["teacher"], batch, config.frame)
        parts, metrics = t.image_terms(out, batch, depth, weights, frozen.get("perceptual"), dtype)
        if weights.pose:
            value, found = t.pose_loss(out["pose"], batch)
            parts["pose"] = value
            metrics |= found | {"pose/eye_error": t.eye_error(out["pose"], batch)}
        if weights.gaze and estimator is not None:
            parts["gaze"], found = t.gaze_term(out["image"], batch, frozen["estimator"], estimator[0])
            metrics |= found
        if config.eyes.enabled and weights.any_eyes:
            more, found = t.eye_terms(out["eyes"], batch, weights, frozen.get("perceptual"), config)
            parts, metrics = parts | more, metrics | found
            if weights.adversarial:
                parts |= t.adversarial_terms(critic, params["critic"], out["eyes"], batch, weights, config)
        return total_loss(parts, weights.of(parts)), metrics | {f"loss/{k}": v for k, v in parts.items()}

    def images(params: Any, frozen: Any, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        batch = prepare(batch, config.frame, None)
        out: Any = model.apply(
            {"params": params["model"]},
            batch["source_image"] * 2 - 1,
            batch["prompt"],
            batch["target_camera"],
            batch["eye_centers"],
            batch["source_camera"],
        )
        depth = jnp.broadcast_to(((3.1 - out["depth"]) / 0.8)[..., None], out["image"].shape)
        masked = batch["target_image"] * batch["target_face_mask"][..., None]
        pictures = {"views": image_grid([batch["source_image"], (out["image"] + 1) / 2, masked, depth])}
        if config.eyes.enabled:
            truth = t.eye_targets(out["eyes"], batch, config.eyes.patch)["image"]
            both = [x[:, i] for i in (1, 0) for x in (out["eyes"]["raw"], out["eyes"]["patches"], truth)]
            pictures["eyes"] = image_grid(both)
        return pictures

    needs = ("frontal",) if depth_source == "teacher" else ()
    return Objective(init, loss, images, frozen, header(config, "student"), needs=needs)


def portrait(
    config: ModelConfig, weights: LossWeights, *, perceptual: Perceptual | None = None, augment: bool = True
) -> Objective:
    """The teacher's objective: multi-view photometric and depth. Source and target share the gaze (pairs with
    same_gaze)."""
    model = PortraitGenerator(config)

    def init(key: Array) -> Any:
        size = config.image_size
        image, camera = jnp.zeros((1, size, size, 3)), frontal_camera()[None]
        return {"model": initialize(model, key, image, camera, camera)}

    def loss(params: Any, frozen: Any, batch: dict[str, Array], key: Array, step: Array) -> tuple[Array, Metrics]:
        batch = prepare(batch, config.frame, jax.random.fold_in(key, 1) if augment else None)
        keys = transform.example_keys(jax.random.fold_in(key, 2), batch)
        out: Any = model.apply(
            {"params": params["model"]},
            batch["source_image"] * 2 - 1,
            batch["source_camera"],
            batch["target_camera"],
            keys,
        )
        out |= {"base": out["image"], "coarse_depth": out["depth"]}
        parts, metrics = t.image_terms(
            out, batch, batch["target_depth"], weights, frozen.get("perceptual"), jnp.dtype(config.dtype)
        )
        return total_loss(parts, weights.of(parts)), metrics | {f"loss/{k}": v for k, v in parts.items()}

    def images(params: Any, frozen: Any, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        batch = prepare(batch, config.frame, None)
        out: Any = model.apply(
            {"params": params["model"]}, batch["source_image"] * 2 - 1, batch["source_camera"], batch["target_camera"]
        )
        masked = batch["target_image"] * batch["target_face_mask"][..., None]
        return {"views": image_grid([batch["source_image"], (out["image"] + 1) / 2, masked])}

    frozen = {} if perceptual is None else {"perceptual": perceptual}
    return Objective(init, loss, images, frozen, header(config, "portrait"))


def training_estimator(path: str) -> tuple[EstimatorConfig, Any]:
    """Configuration and parameters of the estimator that the gaze term asks.

    Raises UserError for the one that evaluation asks, which nothing may be trained against, and for one that errs by
    more than MAX_GAZE_ERROR degrees, which would teach its own mistakes.
    """
    params, header = load_weights(path)
    if header.get("kind") != "estimator":
        raise UserError(f"gaze_estimator={path} is no gaze estimator (configs/estimator.py)")
    if ESTIMATOR.is_file() and read_header(ESTIMATOR)["sha256"] == header["sha256"]:
        raise UserError(f"gaze_estimator={path} is the one that evaluation asks; train another, with another seed")
    error = header.get("training", {}).get("metrics", {}).get("gaze_error_deg")
    if error is None:
        raise UserError(f"gaze_estimator={path} does not say how far it errs; train it again with this version")
    if error > MAX_GAZE_ERROR:
        raise UserError(
            f"gaze_estimator={path} errs by {error:.1f} degrees at the end of its training; {MAX_GAZE_ERROR:g} at most"
        )
    return config_from_dict(header["config"]), params


def build(config: Any) -> Objective:
    """The objective of a training configuration (configs/rtgaze.py, configs/portrait.py): reads `kind`, `model`,
    `losses`, `distill`,
    `perceptual`, `gaze_estimator`, `eye_jitter`, `augment`."""
    if config.kind in ("estimator", "warp"):  # what evaluation needs
        from rtgaze_jax.training import estimator_objective, warp_objective

        return {"estimator": estimator_objective, "warp": warp_objective}[config.kind].build(config)
    model, weights = from_dict(config.model), LossWeights(**config.losses)
    perceptual = None
    if weights.perceptual or weights.eye_perceptual:
        perceptual = load_perceptual(config.perceptual)
    if config.kind == "portrait":
        return portrait(model, weights, perceptual=perceptual, augment=config.augment)
    teacher = None
    if config.distill.source == "teacher":
        params, header = load_weights(config.distill.teacher)
        teacher = (from_dict(header["config"]), params)
    estimator = training_estimator(config.gaze_estimator) if weights.gaze else None
    return student(
        model,
        weights,
        perceptual=perceptual,
        teacher=teacher,
        estimator=estimator,
        depth_source=config.distill.source,
        eye_jitter=config.eye_jitter,
        augment=config.augment,
    )
