"""RTGaze in JAX: redirect the gaze of one face photo, in 3D, in real time."""

__version__ = "0.1.0"
