"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a wrong continuation (Orbax v1).

One checkpoint = the TrainState (arrays) plus a JSON description: loader position, the run's configuration, and a
SHA-256 over state and position that is checked on loading. WORKDIR/checkpoints/STEP; Orbax writes under a temporary
name and renames.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.training.state import TrainState

FOLDER = "checkpoints"


def digest(state: Any, position: Any) -> str:
    """One SHA-256 over every array of `state` (path, type, shape, bytes; in order of path) and the loader position."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    named = sorted((jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in leaves)
    total = hashlib.sha256()
    for name, leaf in named:
        total.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        total.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    total.update(json.dumps(position, sort_keys=True).encode())
    return total.hexdigest()


def _size(state: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


@contextlib.contextmanager
def _clear_errors(directory: Path, last: int | None) -> Iterator[None]:
    """Turns a failed write into one line that says what is still there."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text or "RESOURCE_EXHAUSTED" in text
        cause = f"no space left on the disk of {directory}" if full else f"{type(error).__name__}: {text[:300]}"
        kept = "no earlier checkpoint exists" if last is None else f"the checkpoint of step {last} is intact"
        cure = (
            "free some space and run the same command again" if full else "run the same command again to go on from it"
        )
        raise FailureError(f"saving a checkpoint failed: {cause}; {kept}; {cure}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax reads many arrays at once; when one fails, the others' late callbacks would each print a traceback."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logging.set_verbosity(level)


def _whole(metadata: Any) -> Any:
    if metadata is None:  # what Orbax says of arrays that it cannot read
        raise ValueError("its arrays cannot be read")
    return metadata


class Checkpoints:
    """The checkpoints of one run. Use from one thread; on several processes, call everything on all of them."""

    def __init__(self, workdir: str | os.PathLike, *, keep_last: int = 2, keep_best: int = 1, best: str = "loss"):
        """Keeps the newest `keep_last` and the `keep_best` with the lowest metric `best`."""
        self.directory = Path(workdir).absolute() / FOLDER
        self._keep_last, self._keep_best, self._best = keep_last, keep_best, best
        self._response: Any = None
        self._open()

    def _open(self) -> None:
        policies = ocp.training.preservation_policies
        keep = [policies.LatestN(self._keep_last)]
        if self._keep_best:
            keep.append(policies.BestN(get_metric_fn=lambda m: m[self._best], n=self._keep_best, reverse=True))
        with _clear_errors(self.directory, None):
            self._orbax = ocp.training.Checkpointer(
                self.directory, preservation_policy=policies.AnyPreservationPolicy(keep), cleanup_tmp_directories=True
            )

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return [found.step for found in self._orbax.checkpoints]

    def save(self, state: TrainState, position: Any, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """Starts writing a checkpoint; returns once the state has left the devices.

        `position` and `config` are JSON values. Raises FailureError if this or the previous save cannot be completed
        (disk full, say).
        """
        self.wait()
        step = int(state.step)
        if step in self.steps:
            return
        last = self.steps[-1] if self.steps else None
        with _clear_errors(self.directory, last):
            free = shutil.disk_usage(self.directory).free
            if free < 1.1 * _size(state):
                raise OSError(errno.ENOSPC, f"{free} bytes free, {_size(state)} needed")
            about = {"position": position, "config": config, "sha256": digest(state, position)}
            self._response = self._orbax.save_checkpointables_async(
                step, {"state": state}, metrics=metrics, custom_metadata=about, force=True
            )

    def check(self) -> None:
        """Raises FailureError if a finished background save has failed; never waits."""
        if self._response is not None and not self._orbax.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits for the save under way. Raises FailureError if it failed."""
        if self._response is None:
            return
        response, self._response = self._response, None
        with _clear_errors(self.directory, next(reversed(self.committed()), None)):
            response.result()

    def committed(self) -> list[int]:
        """Steps of the checkpoints that lie complete on disk, ascending."""
        return _steps(self.directory)

    def restore(
        self, like: TrainState, accept: Callable[[dict[str, Any]], None]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole, shaped and placed as `like`, and its description; None if there is none.

        A checkpoint that cannot be read, or whose SHA-256 is wrong, is moved to WORKDIR/corrupt with a warning. `like`
        holds arrays or ShapeDtypeStructs with shardings; a state of other shapes raises UserError. accept(config)
        raises where the run's saved configuration must not be continued.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        for step in reversed(self.steps):
            try:
                with _quiet():
                    about = self._orbax.checkpointables_metadata(step)
                    saved, config = _shapes(_whole(about.metadata["state"])), about.custom_metadata["config"]
            except Exception as error:
                self._set_aside(step, error)
                continue
            accept(config)
            if saved != _shapes(abstract):
                odd = sorted(dict(saved ^ _shapes(abstract)))[:3]
                raise UserError(
                    f"the checkpoint of step {step} holds another model (at {', '.join(odd)}); use another --workdir"
                )
            try:
                with _quiet():
                    state = self._orbax.load_checkpointables(step, {"state": abstract})["state"]
                if digest(state, about.custom_metadata["position"]) != about.custom_metadata["sha256"]:
                    raise ValueError("its SHA-256 does not match its content")
                return state, about.custom_metadata
            except Exception as error:
                self._set_aside(step, error)
        return None

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        print(f"warning: the checkpoint of step {step} is damaged ({reason}); trying the one before", file=sys.stderr)
        self._orbax.close()
        if jax.process_index() == 0:
            target = self.directory.parent / "corrupt" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self.directory / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("set aside")
        self._open()

    def pin(self, step: int, name: str) -> Path:
        """Keeps the checkpoint of `step` for good as WORKDIR/`name` (hard links: no space while the original lives)."""
        target = self.directory.parent / name
        if not target.exists():
            shutil.copytree(self.directory / str(step), target, copy_function=os.link)
        return target

    def close(self) -> None:
        """Finishes the save under way. Raises FailureError if it failed."""
        try:
            self.wait()
        finally:
            self._orbax.close()


def _shapes(tree: Any) -> set[tuple[str, tuple[tuple[int, ...], str]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        (jax.tree_util.keystr(path, simple=True, separator="/"), (tuple(x.shape), str(np.dtype(x.dtype))))
        for path, x in leaves
    }


def _steps(directory: Path) -> list[int]:
    return (
        sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdigit()) if directory.is_dir() else []
    )


def load_host(workdir: str | os.PathLike, step: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint as nested NumPy arrays, with its description, on any machine. `step` None: the newest."""
    directory = Path(workdir).absolute() / FOLDER
    steps = _steps(directory)
    if not steps or (step is not None and step not in steps):
        raise UserError(
            f"no checkpoint {'' if step is None else f'of step {step} '}in {workdir} (expected {directory}/STEP)"
        )
    path = directory / str(steps[-1] if step is None else step)
    try:
        about = ocp.checkpointables_metadata(path)
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), _whole(about.metadata["state"]))
        return ocp.load_checkpointables(path, {"state": empty})["state"], about.custom_metadata
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); training resumes from an older one"
        ) from error


def describe_workdir(workdir: str | os.PathLike) -> dict[str, Any]:
    """What `rtgaze info WORKDIR` prints. sha256 is recomputed from the arrays; intact: it is the one that was
    stored."""
    state, about = load_host(workdir)
    found = digest(state, about["position"])
    return {
        "workdir": str(Path(workdir).absolute()),
        "step": int(state["step"]),
        "sha256": found,
        "intact": found == about["sha256"],
        "skipped": int(state["skipped"]),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
        "position": about["position"],
    }
