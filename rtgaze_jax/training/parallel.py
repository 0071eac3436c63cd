"""The same step on one device, on all devices of a host, on several hosts: jit over a mesh, or pmap."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rtgaze_jax.errors import UserError
from rtgaze_jax.training.step import Step

AXIS = "data"


def initialize(config: Any) -> None:
    """Joins the other processes of the run, before any device is used.

    config.coordinator: "" for a single process; "auto" on clusters that JAX recognises (Slurm, Kubernetes, TPU pods);
    or HOST:PORT with config.processes and config.process_id.
    """
    if not config.coordinator:
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if config.coordinator == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(config.coordinator, config.processes, config.process_id)


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How steps are spread over devices. `mode`: "jit" (sharded batch, replicated state) or "pmap" (equal results)."""

    mode: str
    mesh: Mesh

    @property
    def devices(self) -> int:
        """Devices of all processes together."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of state and frozen arrays."""
        return NamedSharding(self.mesh, PartitionSpec())

    def compile(self, make: Callable[[str | None], Step]) -> Step:
        """The step on this mesh; `make(axis_name)` builds the pure one. The state's buffers are donated."""
        if self.mode == "pmap":
            return jax.pmap(
                make(AXIS),
                axis_name=AXIS,
                in_axes=(None, None, 0),
                out_axes=None,
                donate_argnums=0,
                devices=list(self.mesh.devices.flat),
            )
        split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        same = self.replicated
        return jax.jit(make(None), in_shardings=(same, same, split), out_shardings=(same, same), donate_argnums=0)

    def replicate(self, tree: Any) -> Any:
        """Host or device arrays, equal on all processes, as arrays on every device."""

        def place(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, self.replicated, lambda index: leaf[index])

        return jax.tree.map(place, tree)

    def shared(self, tree: Any) -> Any:
        """A step's result as arrays that span all processes (pmap's span this one only), as checkpoints need them."""
        return self.replicate(tree) if self.mode == "pmap" and jax.process_count() > 1 else tree

    def local_batch(self, batch_size: int, accumulate: int = 1) -> int:
        """This process's share of a global batch. UserError where it does not divide evenly."""
        if batch_size % (self.devices * accumulate):
            raise UserError(
                f"batch_size {batch_size} is no multiple of {self.devices} devices x accumulate {accumulate}; "
                "change batch_size, accumulate or parallel.devices"
            )
        return batch_size // jax.process_count()

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows of a batch onto its devices, with the rows' global numbers as "index" (int32)."""
        rows = len(next(iter(batch.values())))
        here = len(self.mesh.local_devices)
        first = rows * jax.process_index()
        batch = {**batch, "index": np.arange(first, first + rows, dtype=np.int32)}
        if self.mode == "pmap":
            batch = {k: v.reshape(here, rows // here, *v.shape[1:]) for k, v in batch.items()}
        split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return {k: jax.make_array_from_process_local_data(split, v) for k, v in batch.items()}


def make_parallel(config: Any) -> Parallel:
    """config: mode "jit" | "pmap"; devices: how many to use (0: all)."""
    devices = jax.devices()
    if config.mode not in ("jit", "pmap"):
        raise UserError(f"parallel.mode is '{config.mode}'; choose jit or pmap")
    if config.devices and jax.process_count() > 1:
        raise UserError("parallel.devices selects devices of one process; leave it 0 with several")
    if config.devices > len(devices):
        raise UserError(f"parallel.devices is {config.devices}, but there are {len(devices)}")
    chosen = np.array(devices[: config.devices or None])
    return Parallel(config.mode, Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,)))


def agree(value: int) -> int:
    """The bits that any process has set, on all of them (waits for the devices; with one process it is free)."""
    if jax.process_count() == 1:
        return value
    return int(np.bitwise_or.reduce(multihost_utils.process_allgather(np.int32(value))))
