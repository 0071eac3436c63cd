"""Errors that users can act on: one line with the cause and the cure."""


class UserError(Exception):
    """Bad input (file, argument, configuration). The command line prints it on one line and exits with 2."""


class FailureError(Exception):
    """The work itself failed (disk full, no device, diverged run). The command line prints one line, exits with 1."""


class NoFaceError(UserError):
    """No face was found in a photo."""
