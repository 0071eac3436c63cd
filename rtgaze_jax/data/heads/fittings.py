"""What a head wears, as items for the renderer: hair, teeth, clothes, glasses, beard. Placed once per capture."""

import numpy as np

from rtgaze_jax.data.heads import glasses, strands
from rtgaze_jax.data.heads.assets import load_pack, load_texture
from rtgaze_jax.data.heads.gl import STRAND, Mesh
from rtgaze_jax.data.heads.people import Glasses, Person
from rtgaze_jax.data.heads.renderer import Item, Renderer
from rtgaze_jax.data.heads.shape import UNIT, Head, bind, smoothstep, vertex_normals
from rtgaze_jax.data.record import PARTS

HAIR_THRESHOLD = 0.55
HAIR_CENTER = np.array([0.0, 0.05, -0.22], np.float32)  # world units
CLOTHES_NEARER = 0.0035  # in clip depth: about 6 mm, so that the skin below does not show through
EAR_REST = ((0.735, 7.375, 0.42), (-0.735, 7.375, 0.42))  # where temples lie on the unshaped head, dm


def over_eyes(rest: np.ndarray) -> np.ndarray:
    """How much hair at rest positions [n, 3] (dm) is cut away because it would hang over the eyes, 0 .. 1."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    hem = 7.50 + 0.05 * np.cos(9 * rest[:, 0])
    return smoothstep(0.06, -0.04, y - hem) * smoothstep(0.78, 0.66, x) * smoothstep(0.85, 1.0, z)


def bound_mesh(renderer: Renderer, name: str) -> Mesh:
    """The mesh of a proxy ("hair/short01"); its fixed part is the same for all people, so it is made once."""
    key = f"mesh:{name}"
    if key not in renderer.samplers:
        proxy = load_pack().proxies[name]
        static = np.zeros((len(proxy.vertex), 9), np.float32)
        static[:, :2] = proxy.uv
        if name.startswith("hair/"):
            static[:, 5] = over_eyes(bind(proxy, load_pack().vertices))[proxy.vertex]
        renderer.samplers[key] = Mesh(renderer.context, len(proxy.vertex), proxy.triangles, static)
    return renderer.samplers[key]


def stored(renderer: Renderer, name: str):
    """A texture of the pack on the GPU."""
    return renderer.texture(load_texture(name), name)


def place_bound(item: Item, name: str, head: Head, base: np.ndarray) -> None:
    """Move a bound mesh to posed base vertices."""
    proxy = load_pack().proxies[name]
    placed = head.place(bind(proxy, base))
    normals = vertex_normals(placed, proxy.faces)
    if name.startswith("hair/"):
        # cards cross each other at all angles: shade them like the rounded mass they stand for
        outward = placed - HAIR_CENTER
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        normals = normals * np.sign((normals * outward).sum(1, keepdims=True)) * 0.4 + outward * 0.6
    item.mesh.move(np.concatenate([placed, normals], 1)[proxy.vertex])


def hair_item(renderer: Renderer, person: Person) -> Item:
    """Hair cards."""
    name = f"hair_{person.hair}"
    pixels = load_texture(name).astype(np.float32) / 255
    light = (pixels[..., :3] ** 2.2) @ np.array([0.3, 0.59, 0.11], np.float32)
    mean = float((light * pixels[..., 3]).sum() / pixels[..., 3].sum())
    return Item(
        bound_mesh(renderer, f"hair/{person.hair}"),
        "hair",
        PARTS.hair,
        {"hair_colour": np.array(person.hair_colour), "mean": mean, "threshold": HAIR_THRESHOLD},
        {"picture": stored(renderer, name)},
        threshold=HAIR_THRESHOLD,
        offset=0.008,
        wrap=0.2,
    )


def mouth_items(renderer: Renderer) -> dict[str, Item]:
    """Teeth and tongue."""
    looks = {"teeth/base": ("teeth", (0.80, 0.76, 0.68), 0.75), "teeth/tongue": ("tongue", (0.7, 0.55, 0.55), 0.6)}
    return {
        name: Item(
            bound_mesh(renderer, name),
            "object",
            PARTS.mouth,
            {"tint": np.array(tint), "gloss": gloss, "metal": 0.0, "cavity": 0.35},
            {"picture": stored(renderer, texture)},
            casts=False,
            offset=0.014,
        )
        for name, (texture, tint, gloss) in looks.items()
    }


def clothes_item(renderer: Renderer, person: Person) -> Item:
    """A collar."""
    pixels = load_texture(f"clothes_{person.clothes}")[..., :3]
    place = load_pack().proxies[f"clothes/{person.clothes}"].uv % 1 * (np.array(pixels.shape[1::-1]) - 1)
    worn = (pixels[place[:, 1].astype(int), place[:, 0].astype(int)] / 255.0) ** 2.2
    tint = np.clip(np.array(person.clothes_colour) / np.maximum(np.median(worn, 0), 0.02), 0.05, 10)
    uniforms = {"tint": tint, "gloss": 0.05, "metal": 0.0, "cavity": 0.6}
    return Item(
        bound_mesh(renderer, f"clothes/{person.clothes}"),
        "object",
        PARTS.clothes,
        uniforms | {"nearer": CLOTHES_NEARER},
        {"picture": stored(renderer, f"clothes_{person.clothes}")},
        offset=0.006,
    )


def glasses_items(renderer: Renderer, worn: Glasses, head: Head, final: np.ndarray) -> list[Item]:
    """Frame and lenses, fitted to posed final vertices (world units)."""
    pack = load_pack()
    face = final * UNIT + head.origin
    ears = np.array([face[np.linalg.norm(pack.rest - spot, axis=1).argmin()] for spot in EAR_REST])
    eyes = np.stack([eye.center for eye in head.eyes])
    built = glasses.build(worn, eyes, head.eyes[0].radius, face, ears)
    items = []
    for (vertices, normals, triangles), lens in ((built.frame, False), (built.lenses, True)):
        mesh = Mesh(renderer.context, len(vertices), triangles, np.zeros((len(vertices), 9), np.float32))
        mesh.move(np.concatenate([head.place(vertices), normals], 1))
        if lens:
            items.append(Item(mesh, "lens", 0, {"absorb": worn.tint}, casts=False))
        else:
            metal = worn.metal
            look = {"tint": np.array(worn.colour), "gloss": 0.7, "metal": metal, "cavity": 0.3}
            white = {"picture": renderer.white}
            items.append(Item(mesh, "object", PARTS.glasses, look, white, offset=0.004))
    return items


def strand_item(renderer: Renderer, count: int, part: int, colour: np.ndarray, label_width: float) -> Item:
    """An empty item for `count` hairs."""
    empty = np.zeros((count, strands.SEGMENTS + 1, 3))
    blank = strands.Strands(empty, empty[..., 0], empty[:, 0], empty[:, 0, 0])
    rows, triangles = strands.ribbons(blank)
    mesh = Mesh(renderer.context, len(rows), triangles, None, layout=STRAND)
    uniforms = {"hair_colour": colour, "label_width": label_width}
    return Item(mesh, "strand", part, uniforms, casts=False, offset=0.003, wrap=0.3)
