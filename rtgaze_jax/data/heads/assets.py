"""The asset pack: head mesh, shape targets, bindings and textures, read once per process.

Lengths are decimetres in MakeHuman's axes (x subject's left, y up, z forward); assets/ASSETS.md describes the pack.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rtgaze_jax.errors import FailureError

FOLDER = Path(__file__).parent / "assets"
TARGET_UNIT = 1e-4  # dm per step of a stored target


@dataclass(frozen=True)
class Proxy:
    """A mesh bound to the head: vertex = sum(weight * head[ref]) + offset * scale."""

    ref: np.ndarray  # [n, 3] base vertex numbers
    weight: np.ndarray  # [n, 3]
    offset: np.ndarray  # [n, 3] dm
    vertex: np.ndarray  # [m] proxy vertex of every drawn vertex (welded by position and uv)
    uv: np.ndarray  # [m, 2]
    triangles: np.ndarray  # [t, 3] into drawn vertices
    faces: np.ndarray  # [f, 4] quads over proxy vertices, for normals


@dataclass(frozen=True)
class Pack:
    """Everything that does not depend on the person."""

    vertices: np.ndarray  # [n, 3] base mesh and helpers
    rows: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]  # subdivision: (final rows, base columns, weights)
    count: int  # final vertices
    quads: np.ndarray  # [f, 4] final faces
    base_quads: np.ndarray  # [g, 4]
    rest: np.ndarray  # [count, 3] final vertices of the unshaped head
    vertex: np.ndarray  # [m] final vertex of every drawn vertex
    uv: np.ndarray  # [m, 2] in the cropped skin chart
    triangles: np.ndarray  # [t, 3] into drawn vertices
    final_of_base: np.ndarray  # [n] final vertex over each base vertex, -1 for helpers
    scale_pairs: np.ndarray  # [3, 2] base vertices whose distance scales a proxy's offsets
    margins: tuple[np.ndarray, np.ndarray]  # lid edges (left, right), base vertices, counter-clockwise from -pi
    inners: tuple[np.ndarray, np.ndarray]  # the ring behind each edge vertex
    eyes: tuple[np.ndarray, np.ndarray]  # helper spheres
    targets: dict[str, tuple[np.ndarray, np.ndarray]]  # name: (vertices, offsets in dm)
    proxies: dict[str, Proxy]


def weld(quads: np.ndarray, quad_uv: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drawn vertices of a quad mesh with per-corner uv: (source vertex, uv, triangles)."""
    keys, corner = np.unique(quads.astype(np.int64) * 2**20 + quad_uv, return_inverse=True)
    corner = corner.reshape(-1, 4)
    triangles = np.concatenate([corner[:, [0, 1, 2]], corner[:, [0, 2, 3]]]).astype(np.int32)
    proper = (np.diff(np.sort(triangles, 1), axis=1) > 0).all(1)
    return (keys >> 20).astype(np.int32), uv[keys & (2**20 - 1)].astype(np.float32), triangles[proper]


def _stencils(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray):
    """Group the rows of a sparse matrix by length, so that each group is one dense gather."""
    length = np.diff(indptr)
    groups = []
    for n in np.unique(length):
        rows = np.flatnonzero(length == n)
        entries = indptr[rows][:, None] + np.arange(n)
        groups.append((rows, indices[entries].astype(np.int32), data[entries].astype(np.float32)))
    return tuple(groups)


def apply_stencils(groups, values: np.ndarray, count: int) -> np.ndarray:
    """Multiply the grouped sparse matrix with values [n, c] to [count, c]."""
    out = np.empty((count, values.shape[1]), np.float32)
    for rows, columns, weights in groups:
        out[rows] = np.einsum("rk,rkc->rc", weights, values[columns])
    return out


@functools.cache
def load_pack() -> Pack:
    """Read geometry.npz.

    Raises FailureError if the installed package lacks it.
    """
    path = FOLDER / "geometry.npz"
    if not path.exists():
        raise FailureError(f"{path} is missing: reinstall rtgaze-jax with its package data")
    with np.load(path) as archive:
        data = {name: archive[name] for name in archive.files}
    stencils = _stencils(data["matrix_indptr"], data["matrix_indices"], data["matrix_data"])
    count = len(data["matrix_indptr"]) - 1
    vertices = data["vertices"]
    # the skin textures hold the head's chart only: x 322..512 and y 85..442 of 512, y downwards
    uv = data["uv"] * 512
    uv = np.stack([(uv[:, 0] - 322) / 190, (512 - uv[:, 1] - 85) / 357], 1)
    vertex, drawn_uv, triangles = weld(data["quads"], data["quad_uv"], uv)
    ends = np.cumsum(data["target_counts"])
    targets = {}
    offsets = data["target_offsets"].T
    for name, start, end in zip(data["target_names"], ends - data["target_counts"], ends, strict=True):
        index = np.cumsum(data["target_indices"][start:end], dtype=np.int32)
        targets[str(name)] = (index, offsets[start:end].astype(np.float32) * TARGET_UNIT)
    proxies = {}
    for key in {name.rsplit("/", 1)[0] for name in data if name.startswith("proxy/")}:
        field = {name.rsplit("/", 1)[1]: data[name] for name in data if name.startswith(key + "/")}
        welded = weld(field["quads"], field["quad_uv"], field["uv"] * (1, -1) + (0, 1))
        proxies[key.removeprefix("proxy/")] = Proxy(
            field["ref"].astype(np.int32),
            field["weight"],
            field["offset"],
            *welded,
            field["quads"].astype(np.int32),
        )
    return Pack(
        vertices=vertices,
        rows=stencils,
        count=count,
        quads=data["quads"].astype(np.int32),
        base_quads=data["base_quads"].astype(np.int32),
        rest=apply_stencils(stencils, vertices, count),
        vertex=vertex,
        uv=drawn_uv,
        triangles=triangles,
        final_of_base=data["final_of_base"],
        scale_pairs=data["scale_pairs"].reshape(3, 2).astype(np.int32),
        margins=tuple(data[f"margin_{side}"].astype(np.int32) for side in ("left", "right")),
        inners=tuple(data[f"inner_{side}"].astype(np.int32) for side in ("left", "right")),
        eyes=tuple(data[f"eye_{side}"].astype(np.int32) for side in ("left", "right")),
        targets=targets,
        proxies=proxies,
    )


@functools.cache
def load_texture(name: str) -> np.ndarray:
    """A texture of the pack as uint8 [H, W, C], top row first."""
    with Image.open(FOLDER / f"{name}.webp") as picture:
        return np.array(picture)


@functools.cache
def face_albedo(name: str) -> np.ndarray:
    """Mean linear colour [3] of the face in a skin texture."""
    h, w = load_texture(name).shape[:2]
    face = load_texture(name)[int(h * 0.36) : int(h * 0.64), int(w * 0.42) : int(w * 0.70)] / 255.0
    return (face**2.2).mean((0, 1))


def texture_names(prefix: str) -> list[str]:
    """Sorted names of the textures that begin with a prefix."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.webp"))
