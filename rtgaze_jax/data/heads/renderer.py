"""One EGL context that draws head scenes: ambient light, shadows, anti-aliased colour, exact labels."""

from dataclasses import dataclass, field

import numpy as np

from rtgaze_jax.data.heads.gl import Mesh, assign, column_major, create_context, shader_source
from rtgaze_jax.data.heads.light import Light, directions

NEAR, FAR = 1.2, 6.0  # world units in front of the camera
EXTENT = 0.66  # half size of the shadow and ambient maps, world units
FOCUS = np.array([0.0, -0.03, -0.10])  # their centre
TILE, COLUMNS, ROWS = 160, 8, 5  # ambient depth maps
SHADOW = 1536
UNITS = {  # texture units by sampler name
    "picture": 0,
    "environment": 1,
    "shadow_map": 2,
    "detail": 3,
    "lips_mask": 4,
    "lids_mask": 10,
    "iris_map": 5,
    "sclera_map": 6,
    "atlas": 7,
    "scene": 8,
    "parts": 9,
}


@dataclass
class Item:
    """One mesh of a scene and how it is drawn."""

    mesh: Mesh
    shader: str  # skin, eye, hair, object, strand, lens
    part: int  # label; 0 leaves no label
    uniforms: dict = field(default_factory=dict)
    textures: dict = field(default_factory=dict)  # sampler: texture
    threshold: float = 0.0  # alpha cut of shadows, ambient maps and labels
    inner_part: int = 0  # label of the inside of the mouth
    casts: bool = True
    offset: float = 0.004  # lift of the ambient look-up, world units
    wrap: float = 0.0
    lift: np.ndarray | None = None  # [4] for eyeballs


@dataclass(frozen=True)
class Develop:
    """The camera's exposure and tone, shared by all images of a capture."""

    gain: np.ndarray  # [3]
    contrast: float
    saturation: float
    lift: float


def projection(cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Clip matrix of an OpenCV camera with normalised intrinsics; clip y points down, so rows come out top first."""
    rotation = cam2world[:3, :3].T
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = rotation, -rotation @ cam2world[:3, 3]
    fx, skew, cx = intrinsics[0]
    _, fy, cy = intrinsics[1]
    clip = np.array(
        [
            [2 * fx, 2 * skew, 2 * cx - 1, 0],
            [0, 2 * fy, 2 * cy - 1, 0],
            [0, 0, (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)],
            [0, 0, 1, 0],
        ]
    )
    return clip @ view


def orthographic(direction: np.ndarray) -> np.ndarray:
    """Clip matrix of a view along -direction around FOCUS."""
    right = np.cross([0.0, 1.0, 0.0] if abs(direction[1]) < 0.95 else [0.0, 0.0, 1.0], direction)
    right /= np.linalg.norm(right)
    rows = np.stack([right, np.cross(direction, right), -np.asarray(direction)]) / EXTENT
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rows, -rows @ FOCUS
    return matrix


class Renderer:
    """Draws scenes at one resolution. One per process; not thread-safe.

    Raises FailureError if no EGL context can be made.
    """

    def __init__(self, resolution: int, supersample: int = 2, device: int | None = None):
        """Create the context.

        Args:
            resolution: width and height of the images.
            supersample: colour samples per pixel and axis.
            device: EGL device number, or None for the default.
        """
        self.resolution, self.supersample = resolution, supersample
        self.context = context = create_context(device)
        context.front_face = "cw"  # the clip matrix turns pictures upside down
        self.samplers: dict = {}
        program = self._program
        self.surfaces = {n: program("surface.vert", f"{n}.frag") for n in ("skin", "eye", "hair", "object", "lens")}
        self.surfaces["strand"] = program("strand.vert", "strand.frag")
        self.depth_program = program("depth.vert", "depth.frag")
        self.label_program = program("label.vert", "label.frag")
        self.strand_label_program = program("strand.vert", "strand_label.frag")
        self.ambient_program = context.program(vertex_shader=shader_source("ambient.vert"), varyings=["out_ambient"])
        self.background_program = program("quad.vert", "background.frag")
        self.resolve_program = program("quad.vert", "resolve.frag")
        corners = context.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], np.float32).tobytes())
        self.background_quad = context.vertex_array(self.background_program, [(corners, "2f", "in_corner")])
        self.resolve_quad = context.vertex_array(self.resolve_program, [(corners, "2f", "in_corner")])
        size, large = (resolution, resolution), (resolution * supersample, resolution * supersample)
        self.scene = context.texture(large, 4, dtype="f2")
        self.colour_target = context.framebuffer([self.scene], context.depth_renderbuffer(large))
        self.ray, self.parts = context.texture(size, 1, dtype="f4"), context.texture(size, 1)
        self.label_target = context.framebuffer([self.ray, self.parts], context.depth_renderbuffer(size))
        self.image = context.texture(size, 4)
        self.image_target = context.framebuffer([self.image])
        self.shadow_map, self.shadow_target = self._depth_map((SHADOW, SHADOW))
        self.atlas, self.atlas_target = self._depth_map((TILE * COLUMNS, TILE * ROWS))
        for texture in (self.scene, self.parts):
            texture.filter = (context.NEAREST, context.NEAREST)
        self.environment = self.background = None
        self.white = self.texture(np.full((2, 2, 4), 255, np.uint8), "white")

    def _program(self, vertex: str, fragment: str):
        return self.context.program(vertex_shader=shader_source(vertex), fragment_shader=shader_source(fragment))

    def _depth_map(self, size: tuple[int, int]):
        texture = self.context.depth_texture(size)
        texture.compare_func = "<="
        texture.filter = (self.context.LINEAR, self.context.LINEAR)
        return texture, self.context.framebuffer(depth_attachment=texture)

    def texture(self, pixels: np.ndarray, name: str | None = None, repeat: tuple[bool, bool] = (False, False)):
        """Upload uint8 or float32 pixels [H, W, C] with mipmaps; a named texture is kept for the process's life."""
        if name is not None and name in self.samplers:
            return self.samplers[name]
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        kind = "f1" if pixels.dtype == np.uint8 else "f2"
        data = np.ascontiguousarray(pixels if kind == "f1" else pixels.astype(np.float16))
        texture = self.context.texture(pixels.shape[1::-1], pixels.shape[2], data.tobytes(), alignment=1, dtype=kind)
        texture.build_mipmaps()
        texture.filter = (self.context.LINEAR_MIPMAP_LINEAR, self.context.LINEAR)
        texture.repeat_x, texture.repeat_y = repeat
        if kind == "f1":
            texture.anisotropy = 4.0
        if name is not None:
            self.samplers[name] = texture
        return texture

    def _bind(self, program, textures: dict) -> None:
        for name, texture in textures.items():
            if name in program:
                texture.use(UNITS[name])
                program[name].value = UNITS[name]

    def set_light(self, light: Light, background: np.ndarray) -> None:
        """Upload a capture's light and backdrop."""
        for texture in (self.environment, self.background):
            if texture is not None:
                texture.release()
        self.light = light
        self.environment = self.texture(light.environment, repeat=(True, False))
        self.background = self.texture(background, repeat=(True, True))
        self.shadow_matrix = orthographic(light.key_direction)

    def trace_ambient(self, items: list[Item]) -> None:
        """Draw the depth maps of the ambient light from the items that cast shadows."""
        context = self.context
        self.atlas_target.use()
        self.atlas_target.clear(depth=1.0)
        context.enable_only(context.DEPTH_TEST)
        for i, direction in enumerate(directions()):
            self.atlas_target.viewport = (i % COLUMNS * TILE, i // COLUMNS * TILE, TILE, TILE)
            self._draw_depth(items, orthographic(direction), coarse=True)

    def _draw_depth(self, items: list[Item], matrix: np.ndarray, coarse: bool) -> None:
        program = self.depth_program
        assign(program, {"projection": column_major(matrix)})
        for item in items:
            if item.casts and item.mesh.static is not None:
                self._bind(program, {"picture": item.textures.get("picture", self.white)})
                assign(program, {"threshold": item.threshold})
                item.mesh.draw(program, coarse)

    def light_items(self, items: list[Item]) -> None:
        """Compute the ambient light on the vertices of items."""
        program = self.ambient_program
        rays = directions()
        matrices = [orthographic(d) for d in rays]
        self.atlas.use(UNITS["atlas"])
        assign(
            program,
            {
                "directions": rays,
                "rights": np.stack([m[0, :3] * EXTENT for m in matrices]),
                "radiance": self.light.ambient,
                "extent": EXTENT,
                "bias": 0.0018,
                "focus": FOCUS,
                "atlas": UNITS["atlas"],
            },
        )
        for item in items:
            lift = np.zeros(4) if item.lift is None else item.lift
            assign(program, {"offset": item.offset, "wrap": item.wrap, "lift": lift})
            item.mesh.feed(program)

    def cast_shadows(self, items: list[Item]) -> None:
        """Draw the key light's shadow map."""
        self.shadow_target.use()
        self.shadow_target.clear(depth=1.0)
        self.context.enable_only(self.context.DEPTH_TEST)
        self._draw_depth(items, self.shadow_matrix, coarse=False)

    def draw(
        self, items: list[Item], cam2world: np.ndarray, intrinsics: np.ndarray, develop: Develop, window: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw one view.

        Args:
            items: opaque ones first, in drawing order.
            cam2world: [4, 4] OpenCV axes.
            intrinsics: [3, 3] normalised.
            develop: exposure and tone.
            window: [4] origin and size of the visible part of the backdrop, in its texture coordinates.

        Returns:
            image uint8 [R, R, 3], parts uint8 [R, R], ray length float32 [R, R] in world units (0: background).
        """
        matrix = column_major(projection(cam2world, intrinsics))
        position = cam2world[:3, 3]
        self._draw_labels(items, matrix, position)
        context = self.context
        self.colour_target.use()
        self.colour_target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        context.disable(context.DEPTH_TEST | context.BLEND)
        self._bind(self.background_program, {"picture": self.background})
        assign(self.background_program, {"origin": window[:2], "size": window[2:]})
        self.background_quad.render(context.TRIANGLE_STRIP)
        context.enable(context.DEPTH_TEST)
        pixel = 1.0 / (intrinsics[0, 0] * self.resolution * self.supersample)
        shared = {
            "projection": matrix,
            "camera": position,
            "key_direction": self.light.key_direction,
            "key_colour": self.light.key_colour,
            "key_softness": self.light.key_softness,
            "shadow_matrix": column_major(self.shadow_matrix),
            "pixel": pixel,
            "least": 1.0,
            "brightest": 0.07 * self.light.level,
        }
        textures = {"environment": self.environment, "shadow_map": self.shadow_map}
        for name, program in self.surfaces.items():
            if any(item.shader == name for item in items):
                assign(program, shared)
                self._bind(program, textures)
        solid = [item for item in items if item.shader not in ("strand", "lens")]
        for item in solid:
            self._draw_item(item, {"fringe": 0.0})
        context.enable(context.BLEND)
        context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA
        self.colour_target.depth_mask = False
        for item in items:
            if item.shader == "strand":
                self._draw_item(item, {})
            elif item.shader == "hair":
                self._draw_item(item, {"fringe": 1.0})
        context.blend_func = context.ONE, context.ONE_MINUS_SRC_ALPHA
        for item in items:
            if item.shader == "lens":
                self._draw_item(item, {})
        self.colour_target.depth_mask = True
        context.disable(context.BLEND | context.DEPTH_TEST)
        self.image_target.use()
        self._bind(self.resolve_program, {"scene": self.scene, "parts": self.parts})
        assign(
            self.resolve_program,
            {
                "factor": self.supersample,
                "gain": develop.gain,
                "contrast": develop.contrast,
                "saturation": develop.saturation,
                "lift": develop.lift,
            },
        )
        self.resolve_quad.render(context.TRIANGLE_STRIP)
        size = self.resolution
        packed = np.frombuffer(self.image.read(), np.uint8).reshape(size, size, 4)
        ray = np.frombuffer(self.ray.read(), np.float32).reshape(size, size)
        return np.ascontiguousarray(packed[..., :3]), np.ascontiguousarray(packed[..., 3]), ray.copy()

    def _draw_item(self, item: Item, extra: dict) -> None:
        program = self.surfaces[item.shader]
        self._cull(item)
        self._bind(program, item.textures)
        assign(program, {"nearer": 0.0} | item.uniforms | extra)
        item.mesh.draw(program)

    def _cull(self, item: Item) -> None:
        """Skin has one side: the inside of a nostril must not show where it pierces a thin wing of the nose."""
        if item.shader == "skin":
            self.context.enable(self.context.CULL_FACE)
        else:
            self.context.disable(self.context.CULL_FACE)

    def _draw_labels(self, items: list[Item], matrix: np.ndarray, position: np.ndarray) -> None:
        context = self.context
        self.label_target.use()
        self.label_target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        context.enable_only(context.DEPTH_TEST)
        shared = {"projection": matrix, "camera": position, "pixel": 1.0 / (4.2647 * self.resolution)}
        assign(self.label_program, shared)
        assign(self.strand_label_program, shared)
        for item in items:
            if item.part == 0:
                continue
            self._cull(item)
            if item.shader == "strand":
                values = {"part": float(item.part), "least": item.uniforms["label_width"]}
                assign(self.strand_label_program, values)
                item.mesh.draw(self.strand_label_program)
            else:
                self._bind(self.label_program, {"picture": item.textures.get("picture", self.white)})
                values = {"part": float(item.part), "threshold": item.threshold, "inner_part": float(item.inner_part)}
                values["nearer"] = item.uniforms.get("nearer", 0.0)
                assign(self.label_program, values)
                item.mesh.draw(self.label_program)
