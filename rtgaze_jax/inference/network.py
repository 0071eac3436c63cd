"""The trained network as compiled programs: stages for a face that is asked again, one program for crops in bulk.

Everything here is in the SOURCE frame, the world whose frontal camera took the face crop: so "camera" angles and the
gaze of this frame are the same thing, whatever world frame the weights use inside ("head" or "source", weights'
header).
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rtgaze_jax.errors import UserError
from rtgaze_jax.geometry.camera import (
    frontal_camera,
    invert_rigid,
    transform_camera,
    transform_points,
    transform_vector,
)
from rtgaze_jax.geometry.gaze import head_gaze_to_vector, vector_to_head_gaze
from rtgaze_jax.inference.fold import cast, merge_reads, parameter_reads, prune, put, put_back
from rtgaze_jax.inference.graphs import compiler_options, host_memory
from rtgaze_jax.models.config import ModelConfig, from_dict
from rtgaze_jax.models.pose import frontal_points
from rtgaze_jax.models.rtgaze import RTGaze, head_to_source
from rtgaze_jax.rendering.kernels import Implementation, capability

STAGES = ("encode", "look", "redirect", "render")
"""The programs of a face that is encoded once: `look` gives its own picture other eyes, `redirect` and `render` make
the head for any view."""
FUSED = "fused"
"""The program that encodes, redirects and renders at once."""
_FETCHED = ("look", "render", FUSED)  # programs whose results go to the host
_TOGETHER = (STAGES[:2], STAGES[2:])  # are compiled in parallel when one of them is first needed
BUCKETS = (1, 8, 32)
"""Batch sizes of the fused program; other numbers of images are padded to the next one."""


def use_compilation_cache(base: str | os.PathLike | None = None) -> None:
    """Keeps compiled programs in the user's cache folder, so that only the first run ever pays for compilation.

    base: a folder to use instead, also where the user chose a place for JAX's own cache.
    """
    if base is None and jax.config.values.get("jax_compilation_cache_dir"):
        return  # the user chose a place
    base = base or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "rtgaze_jax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home: compile every time
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def read_config(header: Mapping[str, Any]) -> ModelConfig:
    """The configuration in the header of a weights file. Raises UserError if it is not a redirector's."""
    try:
        return from_dict(header["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"these weights are for another network ({error}); RTGaze weights are needed") from error


class Network:
    """Weights, and the programs that they define. The stages' arrays have a leading batch axis B, 1 for one face.

    A face that is looked at is asked again: for its own gaze, other gazes, other views. So photos, video and the app
    use the stages and keep what the earlier ones made. Crops that are wanted once, many at a time, go through
    `redirect_images`.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        config: ModelConfig,
        dtype: str | None = None,
        implementation: Implementation = "auto",
    ):
        """`params`: float32 arrays of the host. `dtype`: of the computation; None: the configuration's, float32 on
        processors, which emulate bfloat16 slowly. `implementation`: of the field, see rendering.kernels.Options; "xla"
        for programs that other machines are to run."""
        if dtype is None and jax.default_backend() == "cpu":
            dtype = "float32"
        self.config = dataclasses.replace(config, dtype=dtype or config.dtype)
        self.size = config.image_size
        self.implementation = implementation
        self.functions: dict[str, Callable[..., Any]] = {
            "encode": self._encode_face,
            "look": self._look,
            "redirect": self._redirect_face,
            "render": self._render_view,
            FUSED: self._all_at_once,
        }
        """The programs as pure functions of parameters as they are in a weights file."""
        self._turned = bool(capability())
        self.programs = {name: self._program(name) for name in self.functions}
        self.params = self._place(params)
        self._warm: set[tuple[str, int]] = set()

    @classmethod
    def from_weights(cls, params: Mapping[str, Any], header: Mapping[str, Any]) -> "Network":
        """The network that a weights file (weights/io.py) describes. Raises UserError if it is no redirector."""
        return cls(params, read_config(header))

    def encode(self, image: UInt8[Array | np.ndarray, "B S S 3"]) -> dict[str, Any]:
        """Everything that depends on the face alone. `pose` holds rotation [B, 3, 3] (head to source), eyes, gaze."""
        return self._stage("encode", len(image), image)

    def redirect(
        self,
        features: dict[str, Any],
        gaze: Float[Array | np.ndarray, "B 2"],
        eye_points: Float[Array | np.ndarray, "B 2 2"],
    ) -> dict[str, Array]:
        """The scene with a new gaze (radians, source frame). `eye_points`: eyeballs in the crop, normalised."""
        return self._stage("redirect", len(gaze), features, gaze, eye_points)

    def render(
        self, features: dict[str, Any], scene: dict[str, Array], camera: Float[Array | np.ndarray, "B 25"]
    ) -> dict[str, Array]:
        """Image u8[B, S, S, 3], depth (ray length) and opacity of the head f32[B, R, R] at a camera of the source
        frame. R, the rendering's side, is a fraction of S: `enlarge` makes them as large as the image."""
        return self._stage("render", len(camera), features["pose"], scene, camera)

    def look(
        self,
        features: dict[str, Any],
        gaze: Float[Array | np.ndarray, "B 2"],
        eye_points: Float[Array | np.ndarray, "B 2 2"],
    ) -> UInt8[Array, "B S S 3"]:
        """The encoded crops themselves with other eyes. Several times cheaper than redirect and render, which also make
        the head that other views need. Arguments as in `redirect`."""
        return self._stage("look", len(gaze), features, gaze, eye_points)

    def redirect_images(
        self,
        images: UInt8[Array | np.ndarray, "N S S 3"],
        gaze: Float[Array | np.ndarray, "N 2"],
        eye_points: Float[Array | np.ndarray, "N 2 2"],
    ) -> dict[str, Array | np.ndarray]:
        """Crops with new gazes, seen by their own cameras: image u8[N, S, S, 3], depth and opacity f32[N, R, R] (see
        `render`).

        One program for all of it, compiled for the sizes in BUCKETS only: in between, the last crop is repeated. Gaze
        and eye points as in `redirect`. Raises ValueError for no images or more than the largest bucket.
        """
        count = len(images)
        if not 1 <= count <= BUCKETS[-1]:
            raise ValueError(f"redirect_images takes 1 to {BUCKETS[-1]} images, not {count}")
        size = min(bucket for bucket in BUCKETS if bucket >= count)
        # the few numbers in one array: each array of the host costs a call some 60 us
        wanted = np.concatenate([np.asarray(gaze, np.float32), np.reshape(eye_points, (count, 4))], 1, dtype=np.float32)
        out = self._call(FUSED, _padded(images, size), _padded(wanted, size))
        return out if count == size else {name: np.asarray(value)[:count] for name, value in out.items()}

    def warm_up(self, *names: str, batch: int = 1) -> dict[str, float]:
        """Compiles programs (default: the stages) for a batch size ahead of time, in parallel; later calls compile
        nothing. Returns each one's seconds; those of programs that were compiled before are about 0."""
        lowered = self.lower(*names, batch=batch)

        def seconds(program: jax.stages.Lowered) -> float:
            began = time.perf_counter()
            program.compile()  # jit finds the result in its own cache
            return time.perf_counter() - began

        with ThreadPoolExecutor(len(lowered)) as pool:
            taken = dict(zip(lowered, pool.map(seconds, lowered.values()), strict=True))
        self._warm |= {(name, batch) for name in lowered}
        return taken

    def lower(self, *names: str, batch: int = 1) -> dict[str, jax.stages.Lowered]:
        """The programs (default: the stages) for a batch size, not yet compiled."""
        return {name: traced.lower() for name, traced in self.trace(*names, batch=batch).items()}

    def trace(self, *names: str, batch: int = 1) -> dict[str, jax.stages.Traced]:
        """The programs (default: the stages) for a batch size as JAX sees them, not yet lowered."""
        shapes = self.argument_shapes(batch)
        return {name: self.programs[name].trace(self.params[name], *shapes[name]) for name in names or STAGES}

    def argument_shapes(self, batch: int = 1) -> dict[str, tuple[Any, ...]]:
        """What each program takes besides its parameters, for a batch size."""
        # by the programs, which remember what they traced, not by their functions
        return self._arguments(lambda name, *shapes: self.programs[name].eval_shape(self.params[name], *shapes), batch)

    def _arguments(self, results: Callable[..., Any], batch: int) -> dict[str, tuple[Any, ...]]:
        """`argument_shapes` by a function (program, shapes of its arguments) -> shapes of its results."""
        image = jax.ShapeDtypeStruct((batch, self.size, self.size, 3), jnp.uint8)
        gaze, eye_points, camera = (
            jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in ((2,), (2, 2), (25,))
        )
        features = results("encode", image)
        redirect = (features, gaze, eye_points)
        scene = results("redirect", *redirect)
        return {
            "encode": (image,),
            "look": redirect,
            "redirect": redirect,
            "render": (features["pose"], scene, camera),
            FUSED: (image, jax.ShapeDtypeStruct((batch, 6), jnp.float32)),
        }

    def _call(self, name: str, *args: Any) -> Any:
        return self.programs[name](self.params[name], *args)

    def _stage(self, name: str, batch: int, *args: Any) -> Any:
        """A stage's result; the first call for a batch size compiles it, with those that go with it."""
        if (name, batch) not in self._warm:
            self.warm_up(*next(group for group in _TOGETHER if name in group), batch=batch)
        return self._call(name, *args)

    def _program(self, name: str) -> Any:
        """A function compiled for this machine, of parameters from `_place`."""
        function = self.functions[name]

        def program(params: Any, *args: Any) -> Any:
            return function(put_back(params) if self._turned else params, *args)

        place = host_memory() if name in _FETCHED else None
        program.__name__ = function.__name__
        return jax.jit(program, out_shardings=place, compiler_options=compiler_options())

    def _place(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Each program's parameters on the device, cast where that is all the program would do with them."""
        if self.config.dtype == "float32":  # nothing to cast
            return dict.fromkeys(self.programs, put(params, self._turned))
        shapes = self._arguments(lambda name, *given: jax.eval_shape(self.functions[name], params, *given), 1)
        reads = {name: parameter_reads(self.functions[name], params, *shapes[name]) for name in STAGES}
        reads[FUSED] = merge_reads(list(reads.values()))
        placed = put(cast(params, reads[FUSED]), self._turned)
        return {name: prune(placed, reads[name]) for name in self.programs}

    def _apply(self, params: Any, *args: Any, method: str) -> Any:
        return RTGaze(self.config, self.implementation).apply({"params": params}, *args, method=method)

    def _to_world(self, pose: dict[str, Array]) -> Float[Array, "B 4 4"]:
        """The rigid map from the source frame to the weights' world frame."""
        if self.config.frame == "source":
            return jnp.broadcast_to(jnp.eye(4), (pose["rotation"].shape[0], 4, 4))
        return invert_rigid(head_to_source(pose))

    def _encode_face(self, params: Any, image: UInt8[Array, "B S S 3"]) -> dict[str, Any]:
        return self._apply(params, image.astype(jnp.float32) / 127.5 - 1, method="encode")

    def _prompt(self, features: dict[str, Any], gaze: Array, eye_points: Array) -> tuple[Array, Array, Array]:
        """Gaze, eye centres and source camera in the weights' world frame."""
        pose = features["pose"]
        to_world = self._to_world(pose)
        # landmarks know better where an eye is in the image, the pose head how far away it is
        eyes = transform_points(to_world, frontal_points(eye_points, -pose["eyes"][..., 2]))
        prompt = vector_to_head_gaze(transform_vector(to_world, head_gaze_to_vector(gaze)))
        camera = transform_camera(to_world, frontal_camera()[None])
        return prompt, eyes, camera

    def _redirect_face(self, params: Any, features: dict[str, Any], gaze: Array, eye_points: Array) -> dict[str, Array]:
        return self._apply(params, features, *self._prompt(features, gaze, eye_points), method="redirect")

    def _look(self, params: Any, features: dict[str, Any], gaze: Array, eye_points: Array) -> UInt8[Array, "B S S 3"]:
        return _to_uint8(self._apply(params, features, *self._prompt(features, gaze, eye_points), method="look"))

    def _render_view(
        self, params: Any, pose: dict[str, Array], scene: dict[str, Array], camera: Array
    ) -> dict[str, Array]:
        out = self._apply(params, scene, transform_camera(self._to_world(pose), camera), method="render")
        return {
            "image": _to_uint8(out["image"]),
            "depth": out["coarse_depth"].astype(jnp.float32),
            "opacity": jnp.clip(out["opacity"], 0, 1).astype(jnp.float32),
        }

    def _all_at_once(self, params: Any, image: Array, wanted: Float[Array, "B 6"]) -> dict[str, Array]:
        features = self._encode_face(params, image)
        scene = self._redirect_face(params, features, wanted[:, :2], wanted[:, 2:].reshape(-1, 2, 2))
        camera = jnp.broadcast_to(frontal_camera(), (image.shape[0], 25))
        return self._render_view(params, features["pose"], scene, camera)


def enlarge(values: Float[np.ndarray, "R R"], side: int) -> Float[np.ndarray, "side side"]:
    """A rendered map at the image's side, bilinear at pixel centres, on the host: the image alone is worth the way
    from the GPU."""
    return cv2.resize(values, (side, side), interpolation=cv2.INTER_LINEAR)


def _to_uint8(image: Float[Array, "..."]) -> UInt8[Array, "..."]:
    return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255).astype(jnp.uint8)


def _padded(rows: Any, size: int) -> Any:
    """The rows and so many copies of the last one that there are `size`."""
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])


def head_to_camera_gaze(gaze: Float[Array, "1 2"], pose: dict[str, Array]) -> Float[Array, "1 2"]:
    """Head-frame angles (radians) as the crop's camera sees them, by the predicted head pose."""
    return vector_to_head_gaze(transform_vector(head_to_source(pose), head_gaze_to_vector(gaze)))
