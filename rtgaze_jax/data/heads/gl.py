"""Thin layer over moderngl: an EGL context, programs from the shader files, meshes on the GPU."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from rtgaze_jax.errors import FailureError

SHADERS = Path(__file__).parent / "shaders"
DYNAMIC = "3f 3f"  # position, normal
STATIC = "2f 3f 4f"  # uv, rest position, marks
STRAND = "3f 3f 3f 1f 1f 1f 1f"


def create_context(device: int | None = None):
    """A standalone OpenGL context without a display.

    Raises FailureError that names the missing packages if EGL or its drivers are not installed.
    """
    try:
        import moderngl
    except ImportError as error:
        raise FailureError("synthetic heads need moderngl: pip install 'rtgaze-jax[heads]'") from error
    options: Any = {} if device is None else {"device_index": device}
    try:
        return moderngl.create_context(standalone=True, require=330, **({"backend": "egl"} | options))
    except Exception as error:
        raise FailureError(
            f"no OpenGL context through EGL ({error}): install the Debian packages libegl1 and libgl1-mesa-dri "
            "(apt-get install libegl1 libgl1-mesa-dri), or a GPU driver with EGL"
        ) from error


@functools.cache
def shader_source(name: str) -> str:
    """A shader file with its includes."""
    lines = (SHADERS / name).read_text().splitlines()
    return "\n".join(shader_source(line.split()[1]) if line.startswith("//include ") else line for line in lines)


def assign(program, values: dict) -> None:
    """Set the uniforms that a program has; arrays are written as float32."""
    for name, value in values.items():
        if name not in program:
            continue
        if isinstance(value, np.ndarray):
            program[name].write(np.ascontiguousarray(value, np.float32).tobytes())
        else:
            program[name].value = value


def column_major(matrix: np.ndarray) -> np.ndarray:
    """A matrix in GL's order."""
    return np.ascontiguousarray(np.asarray(matrix, np.float32).T)


class Mesh:
    """Vertices on the GPU: a moving part, a fixed part, and the ambient light computed for each vertex."""

    def __init__(
        self,
        context,
        count: int,
        triangles: np.ndarray,
        static: np.ndarray | None,
        layout: str = DYNAMIC,
        coarse: np.ndarray | None = None,
    ):
        """Allocate for `count` vertices.

        Args:
            context: moderngl context.
            count: vertices.
            triangles: [t, 3].
            static: [count, 9] uv, rest position, marks; None for strands.
            layout: of the moving part.
            coarse: fewer triangles over the same vertices, for the ambient maps.
        """
        floats = sum(int(part[0]) for part in layout.split())
        self.context, self.count, self.layout = context, count, layout
        self.dynamic = context.buffer(reserve=max(count, 1) * floats * 4, dynamic=True)
        self.rows = None if static is None else np.array(static, np.float32, order="C")
        self.static = None if self.rows is None else context.buffer(self.rows.tobytes())
        self.ambient = context.buffer(reserve=max(count, 1) * 16)
        self.index = context.buffer(np.ascontiguousarray(triangles, np.int32).tobytes())
        self.coarse = self.index
        if coarse is not None:
            self.coarse = context.buffer(np.ascontiguousarray(coarse, np.int32).tobytes())
        self._arrays: dict = {}

    def move(self, rows: np.ndarray) -> None:
        """Upload positions and normals [count, 6], or strand rows [count, 13]."""
        self.dynamic.write(np.ascontiguousarray(rows, np.float32))

    def fix(self, column: int, values: np.ndarray) -> None:
        """Overwrite some columns of the fixed part."""
        if self.rows is None or self.static is None:
            raise ValueError("strands have no fixed part")
        self.rows[:, column : column + values.shape[1]] = values
        self.static.write(self.rows)

    def _bindings(self, program, names: list[str], layout: str):
        used, formats = [], []
        for name, form in zip(names, layout.split(), strict=True):
            if name in program:
                used.append(name)
                formats.append(form)
            else:
                formats.append(f"{int(form[0]) * 4}x")
        return " ".join(formats), used

    def array(self, program, coarse: bool = False):
        """The vertex array for a program."""
        key = (program, coarse)
        if key not in self._arrays:
            if self.layout == STRAND:
                names = ["in_position", "in_tangent", "in_normal", "in_width", "in_side", "in_shade", "in_tip"]
            else:
                names = ["in_position", "in_normal"]
            content = []
            sources = [(self.dynamic, names, self.layout), (self.ambient, ["in_ambient"], "4f")]
            if self.static is not None:
                sources.append((self.static, ["in_uv", "in_rest", "in_mark"], STATIC))
            for buffer, fields, layout in sources:
                form, used = self._bindings(program, fields, layout)
                if used:
                    content.append((buffer, form, *used))
            index = self.coarse if coarse else self.index
            self._arrays[key] = self.context.vertex_array(program, content, index)
        return self._arrays[key]

    def draw(self, program, coarse: bool = False) -> None:
        """Draw all triangles."""
        self.array(program, coarse).render()

    def feed(self, program) -> None:
        """Run the ambient program over the vertices and keep its result as their ambient light."""
        key = (program, "feed")
        if key not in self._arrays:
            names = ["in_position", "in_normal"]
            if self.layout == STRAND:
                names = ["in_position", "in_tangent", "in_normal", "in_width", "in_side", "in_shade", "in_tip"]
            form, used = self._bindings(program, names, self.layout)
            self._arrays[key] = self.context.vertex_array(program, [(self.dynamic, form, *used)])
        self._arrays[key].transform(self.ambient, mode=self.context.POINTS, vertices=self.count)

    def release(self) -> None:
        """Free the GPU memory."""
        for array in self._arrays.values():
            array.release()
        for buffer in {self.dynamic, self.static, self.ambient, self.index, self.coarse}:
            if buffer is not None:
                buffer.release()
