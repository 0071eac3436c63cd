"""A network as one file that runs without Flax: programs as StableHLO (jax.export) and weights, in a zip archive.

    export_network("face.zip", params, config, platforms=("cpu", "cuda"))       # needs Flax
    network = load_exported("face.zip")                                          # needs jax, flatbuffers and NumPy
    features = network.encode(crops)                                             # as inference/network.py

The archive holds `header.json`, `weights/NAME.npy`, and `programs/PLATFORM/STAGE.bin` for the stages encode, redirect
and render. Nothing in it can run code outside XLA. Each platform's programs compute in the type that is best there:
float32 on processors, the configuration's elsewhere. JAX promises that programs can be read for six months and by
newer versions for longer; the weights file (.safetensors) is the lasting form.
"""

import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import atomic_path

FORMAT = "rtgaze-jax export 1"
PLATFORMS = ("cpu", "cuda", "tpu")
STAGES = ("encode", "look", "redirect", "render")  # inference/network.py's, which needs Flax


class ExportedNetwork:
    """An exported network: the stages of inference/network.py with the same arguments and results.

    size: side of the crops. header: what the file says about itself. batch: None where any number of faces can be
    given at once, else the only one.
    """

    def __init__(
        self, header: Mapping[str, Any], programs: Mapping[str, Any], weights: Mapping[str, Any], batch: int | None
    ):
        self.header = dict(header)
        self.size = int(header["size"])
        self.batch = batch
        self._programs = {name: jax.jit(programs[name].call) for name in STAGES}
        self._weights = weights

    def encode(self, image: Any) -> dict[str, Any]:
        """Crops u8[B, S, S, 3] -> everything that depends on the face alone."""
        return self._programs["encode"](self._weights["encode"], image)

    def look(self, features: dict[str, Any], gaze: Any, eye_points: Any) -> Any:
        """The crops themselves with other eyes u8[B, S, S, 3]; arguments as of `redirect`."""
        return self._programs["look"](self._weights["look"], features, gaze, eye_points)

    def redirect(self, features: dict[str, Any], gaze: Any, eye_points: Any) -> dict[str, Any]:
        """The scene with a new gaze f32[B, 2] (radians, source frame); eye_points f32[B, 2, 2], normalised."""
        return self._programs["redirect"](self._weights["redirect"], features, gaze, eye_points)

    def render(self, features: dict[str, Any], scene: dict[str, Any], camera: Any) -> dict[str, Any]:
        """image u8[B, S, S, 3], depth and opacity f32[B, S, S] at a camera f32[B, 25] of the source frame."""
        return self._programs["render"](self._weights["render"], features["pose"], scene, camera)


def load_exported(path: str | os.PathLike, platform: str | None = None) -> ExportedNetwork:
    """The network of an exported file. `platform`: of the programs, default that of JAX's first device.

    Raises UserError if the file is missing, damaged, of another kind, or without programs for the platform.
    """
    platform = platform or {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("header.json"))
            if header.get("format") != FORMAT:
                raise UserError(f"{path} is of another version; export the weights again with 'rtgaze export'")
            if platform not in header["platforms"]:
                known = ", ".join(header["platforms"])
                raise UserError(f"{path} has programs for {known}, not {platform}; export with --platforms {platform}")
            here = header["platforms"][platform]
            blobs = {name: bytearray(archive.read(f"programs/{platform}/{name}.bin")) for name in STAGES}
            read = functools.cache(lambda name: _read_array(archive, name))
            weights = {
                stage: {name: jnp.asarray(read(name), dtype=dtype) for name, dtype in here["weights"][stage].items()}
                for stage in STAGES
            }
    except FileNotFoundError as error:
        raise UserError(f"no exported network at {path}") from error
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a complete exported network ({' '.join(str(error).split())[:100]})") from error
    programs = {name: jax.export.deserialize(blob) for name, blob in blobs.items()}
    return ExportedNetwork(header, programs, weights, here["batch"])


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    stored = np.lib.format.read_array(io.BytesIO(archive.read(f"weights/{name}.npy")), allow_pickle=False)
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def export_network(
    path: str | os.PathLike,
    params: Mapping[str, Any],
    config: Any,
    *,
    header: Mapping[str, Any] | None = None,
    platforms: Sequence[str] = PLATFORMS,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Writes a network as one file; returns its header.

    Args:
        params, config: as `Network` takes them.
        header: of the weights file; licence, training data and the like are kept.
        platforms: "cpu", "cuda", "tpu" or "rocm". One that a program cannot be lowered for is left out, and said.
        say: gets a line for each platform.

    Raises UserError if no platform is left.
    """
    from rtgaze_jax.weights.io import flatten

    written: dict[str, Any] = {}
    blobs: dict[str, bytes] = {}
    for platform in platforms:
        try:
            programs, reads, batch = _lower(params, config, platform)
        except Exception as error:  # whatever a compiler says, the other platforms are still wanted
            say(f"{platform}: left out ({' '.join(str(error).split())[:200]})")
            continue
        written[platform] = {"batch": batch, "weights": reads}
        blobs |= {f"programs/{platform}/{name}.bin": blob for name, blob in programs.items()}
        say(f"{platform}: {sum(map(len, programs.values())) / 2**20:.1f} MiB of programs, {_batch_text(batch)}")
    if not written:
        raise UserError(f"the network could not be exported for {', '.join(platforms)}")
    kept = {key: value for key, value in (header or {}).items() if key not in ("format", "sha256", "config")}
    full = kept | {
        "format": FORMAT, "jax": jax.__version__, "size": config.image_size, "preset": config.preset,
        "frame": config.frame, "platforms": written,
        "weights_sha256": (header or {}).get("sha256"),
    }  # fmt: skip
    used = {name for found in written.values() for stage in found["weights"].values() for name in stage}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("header.json", json.dumps(full, indent=1))
        for name, blob in blobs.items():
            archive.writestr(name, blob, zipfile.ZIP_DEFLATED)
        for name, array in flatten(params).items():
            if name in used:
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, _smallest(array), allow_pickle=False)
                archive.writestr(f"weights/{name}.npy", buffer.getvalue())
    return full


def _lower(params: Any, config: Any, platform: str) -> tuple[dict[str, bytes], dict[str, dict[str, str]], int | None]:
    """Serialised stages, the type in which each wants each of its weights, and the only batch size (None: any)."""
    from rtgaze_jax.inference.fold import parameter_reads, read_types
    from rtgaze_jax.inference.network import Network
    from rtgaze_jax.models.layers import grow
    from rtgaze_jax.weights.io import flatten, unflatten

    # without kernels, which only the machine that compiles them could run
    network = Network(params, config, "float32" if platform == "cpu" else config.dtype, implementation="xla")
    shapes = network.argument_shapes()
    sizes = {name: array.shape for name, array in flatten(params).items()}
    types = {name: read_types(parameter_reads(network.functions[name], params, *shapes[name])) for name in STAGES}

    def stage(name: str, weights: Mapping[str, jax.Array], *arguments: Any) -> Any:
        """A batch as so many single faces: the network then never computes with an unknown batch size."""

        def one(*face: Any) -> Any:
            alone = jax.tree.map(lambda x, like: x.reshape(like.shape), face, shapes[name])
            out = network.functions[name](unflatten(weights), *alone)
            if name == "render":  # nothing enlarges the maps there
                larger = config.image_size // config.render.resolution
                out |= {key: grow(out[key][..., None], larger)[..., 0] for key in ("depth", "opacity")}
            return jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else x, out)

        return jax.vmap(one)(*arguments)

    def serialized(name: str, batch: Any) -> bytes:
        weights = {k: jax.ShapeDtypeStruct(sizes[k], dtype) for k, dtype in types[name].items()}
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((batch, *(x.shape[1:] if x.shape[0] == 1 else x.shape)), x.dtype),
            shapes[name],
        )
        program = jax.jit(functools.partial(stage, name))
        return bytes(jax.export.export(program, platforms=[platform])(weights, *arguments).serialize())

    try:
        (batch,) = jax.export.symbolic_shape("b")
        return {name: serialized(name, batch) for name in STAGES}, types, None
    except Exception:  # a part of the graph needs to know its shapes
        return {name: serialized(name, 1) for name in STAGES}, types, 1


def _batch_text(batch: int | None) -> str:
    return "any batch size" if batch is None else f"batch size {batch}"


def _smallest(array: np.ndarray) -> np.ndarray:
    """The array in float16 if that loses nothing."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array
