"""RTGaze in JAX: redirect the gaze of one face photo, in 3D, in real time.

    import rtgaze_jax as rtgaze

    model = rtgaze.load()                  # the shipped weights, or load(path)
    face = model.encode("me.jpg")          # or a uint8 RGB array; NoFaceError if there is no face
    out = face.redirect(pitch=10, yaw=-20) # degrees; or face.look_at("camera")
    out.image                              # the whole photo, uint8, with the eyes looking there

Importing this package is light: JAX and the rest come with the first call.
"""

import os
from typing import TYPE_CHECKING, Any

from rtgaze_jax.errors import NoFaceError, UserError

if TYPE_CHECKING:
    from rtgaze_jax.inference.redirector import Redirector

__version__ = "0.1.0"
__all__ = ["NoFaceError", "Redirector", "UserError", "__version__", "load"]


def load(path: str | os.PathLike | None = None) -> "Redirector":
    """A Redirector from a weights file (.safetensors); without a path, the weights that come with the package.

    Raises UserError if the file is missing, damaged or of another kind.
    """
    from rtgaze_jax.inference.redirector import load as load_redirector

    return load_redirector(path)


def __getattr__(name: str) -> Any:
    if name == "Redirector":
        from rtgaze_jax.inference.redirector import Redirector

        return Redirector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
