"""A person in a capture as items for the renderer: built once, then moved for every gaze."""

from dataclasses import dataclass

import numpy as np

from rtgaze_jax.data.heads import eyes, fittings, strands, textures
from rtgaze_jax.data.heads.assets import face_albedo, load_pack
from rtgaze_jax.data.heads.gl import Mesh
from rtgaze_jax.data.heads.people import Person
from rtgaze_jax.data.heads.renderer import Item, Renderer
from rtgaze_jax.data.heads.shape import UNIT, Head, build_head, pose_vertices, refine, smoothstep, vertex_normals
from rtgaze_jax.data.record import PARTS

LASH_COLOUR = np.array([0.012, 0.009, 0.008])


def beard_area(rest: np.ndarray) -> np.ndarray:
    """Where a beard grows, 0 .. 1, at rest positions [n, 3] in dm."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    top = np.interp(x, [0, 0.14, 0.24, 0.36, 0.52, 0.60, 0.68], [6.77, 6.78, 6.74, 6.72, 6.84, 7.05, 7.30])
    bottom = np.interp(x, [0, 0.3, 0.6], [6.10, 6.16, 6.45])
    inside = smoothstep(-0.05, 0.05, top - y) * smoothstep(-0.05, 0.06, y - bottom)
    return inside * smoothstep(0.25, 0.45, z) * smoothstep(0.80, 0.72, x)


def head_marks() -> np.ndarray:
    """Per drawn head vertex: lid edge, wet rim of the lids, inside of the mouth, beard area."""
    pack = load_pack()
    rest = pack.rest
    lid, wet = np.zeros(pack.count), np.zeros(pack.count)
    for ring, inner in zip(pack.margins, pack.inners, strict=True):
        edge, behind = pack.vertices[ring], pack.vertices[inner]
        near = np.flatnonzero(np.linalg.norm(rest - edge.mean(0), axis=1) < 0.3)
        to_edge = np.linalg.norm(rest[near, None] - edge[None], axis=-1).min(1)
        to_behind = np.linalg.norm(rest[near, None] - behind[None], axis=-1).min(1)
        gap = np.linalg.norm(edge - behind, axis=1).mean()
        lid[near] = np.maximum(lid[near], 1 - smoothstep(0.004, 0.03, to_edge))
        wet[near] = np.maximum(wet[near], 1 - smoothstep(0.35, 0.8, to_behind / gap))
    inside = (pack.uv[:, 1] > 1.0).astype(float)
    drawn = pack.vertex
    return np.stack([lid[drawn], wet[drawn], inside, beard_area(rest)[drawn]], 1).astype(np.float32)


@dataclass
class Look:
    """What one gaze looks like: geometry that labels need."""

    final: np.ndarray  # [count, 3] head vertices, world units
    gaze: np.ndarray  # [2, 2] each eye's (pitch, yaw), head frame
    axes: tuple[np.ndarray, np.ndarray]


class Scene:
    """Meshes of one person and capture on one renderer."""

    def __init__(self, renderer: Renderer, person: Person, expression: dict[str, float], opening: float):
        """Build everything that does not change with the gaze.

        Args:
            renderer: draws the scene.
            person: who.
            expression: face-unit weights of the whole capture.
            opening: lid opening of the whole capture.
        """
        self.renderer, self.person = renderer, person
        self.expression, self.opening = expression, opening
        self.head: Head = build_head(person.targets, person.pupil_distance, person.eye_radius, person.fissure)
        self.centers = self.head.place(np.stack([eye.center for eye in self.head.eyes]))
        self.radius = person.eye_radius / UNIT
        self.brow_plan = strands.plan_brows(person)
        self.lash_plans = strands.plan_lashes(person)
        self.owned: list = []
        self._build()

    # --- construction -------------------------------------------------------------------------------------------

    def _texture(self, pixels: np.ndarray, repeat=(False, False)):
        texture = self.renderer.texture(pixels, repeat=repeat)
        self.owned.append(texture)
        return texture

    def _kept_mesh(self, name: str, make) -> Mesh:
        """A mesh whose fixed part is the same for all people: made once per renderer."""
        if name not in self.renderer.samplers:
            self.renderer.samplers[name] = make()
        return self.renderer.samplers[name]

    def _build(self) -> None:
        person, pack, context = self.person, load_pack(), self.renderer.context

        def skin_mesh() -> Mesh:
            static = np.concatenate([pack.uv, pack.rest[pack.vertex], head_marks()], 1)
            drawn = np.zeros(pack.count, np.int32)
            drawn[pack.vertex[::-1]] = np.arange(len(pack.vertex))[::-1]
            quads = drawn[pack.final_of_base[pack.base_quads]]
            coarse = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
            return Mesh(context, len(pack.vertex), pack.triangles, static, coarse=coarse)

        def eye_mesh() -> Mesh:
            vertices, _, triangles = eyes.template()
            static = np.zeros((len(vertices), 9), np.float32)
            static[:, 2:5] = vertices
            return Mesh(context, len(vertices), triangles, static)

        def filling_mesh() -> Mesh:
            vertices, quads = eyes.filling(np.ones((28, 3)), 1.0)
            triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
            self.filling_quads = quads
            return Mesh(context, len(vertices), triangles, np.zeros((len(vertices), 9), np.float32))

        self.skin = Item(
            self._kept_mesh("mesh:skin", skin_mesh),
            "skin",
            PARTS.skin,
            uniforms={
                "tone": np.array(person.tone),
                "mean": face_albedo(person.skin),
                "lips": np.array(person.lips),
                "pores": person.pores,
                "oil": person.oil,
                "redness": person.redness,
                "freckles": person.freckles,
                "liner": person.liner,
                "eye_shadow": np.array(person.shadow),
                "stubble": person.stubble,
                "hair_colour": np.array(person.hair_colour),
            },
            textures={
                "picture": fittings.stored(self.renderer, person.skin),
                "detail": self.renderer.texture(textures.skin_detail(), "detail", repeat=(True, True)),
                "lips_mask": fittings.stored(self.renderer, "mask_lips"),
                "lids_mask": fittings.stored(self.renderer, "mask_eyelids"),
            },
            inner_part=PARTS.mouth,
        )
        eye_textures = {
            "iris_map": self._texture(textures.iris_texture(person.iris), (True, False)),
            "sclera_map": self._texture(textures.sclera_texture(person), (True, False)),
        }
        self.balls: list[Item] = []
        self.fillings: list[Item] = []
        for k, side in enumerate(("left", "right")):
            shared = {
                "center": self.centers[k],
                "radius": self.radius,
                "pupil": person.iris.pupil,
                "side": 1.0 - 2 * k,
                "millimetre": 0.01 / UNIT,
            }
            lift = np.array([*self.centers[k], 0.06 / UNIT])
            for kind, still in (("ball", 0.0), ("filling", 1.0)):
                item = Item(
                    self._kept_mesh(f"mesh:{kind}:{side}", filling_mesh if still else eye_mesh),
                    "eye",
                    PARTS[f"{side}_eye"],
                    uniforms=shared | {"still": still},
                    textures=eye_textures,
                    casts=False,
                    lift=lift,
                )
                (self.fillings if still else self.balls).append(item)
        self.bound: dict[str, Item] = {f"clothes/{person.clothes}": fittings.clothes_item(self.renderer, person)}
        shown = ("jawOpen", "mouthLowerDownLeft", "mouthUpperUpLeft")
        if sum(self.expression.get(name, 0) for name in shown) > 0.02:
            self.bound |= fittings.mouth_items(self.renderer)
        if person.hair:
            self.bound[f"hair/{person.hair}"] = fittings.hair_item(self.renderer, person)
        brow_colour, lash_colour = np.array(person.brow_colour), LASH_COLOUR * (1 + 8 * max(person.hair_colour))
        self.brows = self._strands(len(self.brow_plan.length), PARTS.brows, brow_colour, 1.6)
        self.lashes = self._strands(sum(len(p.length) for p in self.lash_plans), PARTS.lashes, lash_colour, 1.0)
        self.beard_plan = strands.plan_beard(person, beard_area)
        self.beard = None
        if self.beard_plan is not None:
            colour = np.array(person.hair_colour) * (0.8, 0.72, 0.66)
            self.beard = self._strands(len(self.beard_plan.length), PARTS.hair, colour, 1.6)
        self.glasses: list[Item] = []

    def _strands(self, count: int, part: int, colour: np.ndarray, label_width: float) -> Item:
        item = fittings.strand_item(self.renderer, count, part, colour, label_width)
        self.owned.append(item.mesh)
        return item

    # --- motion -------------------------------------------------------------------------------------------------

    def items(self) -> list[Item]:
        """All items in drawing order."""
        # the costly skin comes last of the solid ones, so that what hair and clothes hide is not shaded
        solid = [*self.glasses[:1], *self.bound.values(), *self.balls, *self.fillings, self.skin]
        hairs = [self.brows, self.lashes] if self.beard is None else [self.beard, self.brows, self.lashes]
        return [*solid, *hairs, *self.glasses[1:]]

    def start(self) -> None:
        """Place everything at a straight gaze and trace the capture's ambient light."""
        self._move(np.zeros((2, 2)), first=True)
        self.renderer.trace_ambient(self.items())
        self.renderer.light_items(self.items())

    def look(self, gaze: np.ndarray) -> Look:
        """Turn the eyes; gaze [2, 2] is each eye's head-frame (pitch, yaw)."""
        look = self._move(gaze, first=False)
        self.renderer.light_items([*self.balls, *self.fillings, self.lashes, self.brows])
        self.renderer.cast_shadows(self.items())
        return look

    def _move(self, gaze: np.ndarray, first: bool) -> Look:
        pack = load_pack()
        base = pose_vertices(self.head, self.expression, gaze, self.opening)
        final = refine(self.head, base, gaze)
        normals = vertex_normals(final, pack.quads)
        self.skin.mesh.move(np.concatenate([final, normals], 1)[pack.vertex])
        axes = (eyes.rotation(gaze[0]), eyes.rotation(gaze[1]))
        parts = []
        for k in range(2):
            edge = final[pack.final_of_base[pack.margins[k]]]
            self._move_eye(k, axes[k], edge - self.centers[k])
            parts.append(strands.grow_lashes(self.lash_plans[k], edge, self.centers[k], 1 / UNIT))
        self.lashes.mesh.move(strands.ribbons(strands.Strands.join(parts))[0])
        brows = strands.grow_hairs(self.brow_plan, final, normals, 1 / UNIT)
        self.brows.mesh.move(strands.ribbons(brows)[0])
        if first:
            for name, item in self.bound.items():
                fittings.place_bound(item, name, self.head, base)
            if self.beard is not None and self.beard_plan is not None:
                beard = strands.grow_hairs(self.beard_plan, final, normals, 1 / UNIT)
                self.beard.mesh.move(strands.ribbons(beard)[0])
            if self.person.glasses is not None:
                self.glasses = fittings.glasses_items(self.renderer, self.person.glasses, self.head, final)
                self.owned += [item.mesh for item in self.glasses]
        return Look(final, gaze, axes)

    def _move_eye(self, k: int, axes: np.ndarray, edge: np.ndarray) -> None:
        vertices, normals, _ = eyes.template()
        turned = vertices @ axes.T.astype(np.float32) * self.radius + self.centers[k]
        self.balls[k].mesh.move(np.concatenate([turned, normals @ axes.T.astype(np.float32)], 1))
        offsets, quads = eyes.filling(edge, self.radius)
        around = vertex_normals(offsets, quads)
        around *= np.sign((around * offsets).sum(1, keepdims=True))
        self.fillings[k].mesh.move(np.concatenate([offsets + self.centers[k], around], 1))
        self.fillings[k].mesh.fix(2, offsets / self.radius)
        heights, reach = lid_tables(edge / self.radius)
        for item in (self.balls[k], self.fillings[k]):
            item.uniforms |= {"axes": axes.T, "upper": heights[0], "lower": heights[1], "reach": reach}

    def release(self) -> None:
        """Free what belongs to this scene alone."""
        for thing in self.owned:
            thing.release()
        self.owned.clear()


def lid_tables(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights [2, 16] of the upper and lower lid edge at 16 places between the corners, and the corners' x [2]."""
    left, right = int(edge[:, 0].argmin()), int(edge[:, 0].argmax())
    x = np.linspace(edge[left, 0], edge[right, 0], 16)
    heights = []
    for step in (-1, 1):
        run = [left]
        while run[-1] != right:
            run.append((run[-1] + step) % len(edge))
        points = edge[run]
        order = np.argsort(points[:, 0])
        heights.append(np.interp(x, points[order, 0], points[order, 1]))
    heights.sort(key=lambda h: -h.mean())
    return np.stack(heights), np.array([x[0], x[-1]])
