"""The training loop: everything that happens between steps, and nothing that changes what they compute."""

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from rtgaze_jax import files
from rtgaze_jax.training import fingerprint, transfer
from rtgaze_jax.training.checkpoint import Checkpoints
from rtgaze_jax.training.guards import Guards, Signals, sole_user
from rtgaze_jax.training.logging import Log, Means
from rtgaze_jax.training.optim import make_optimizer, make_schedule
from rtgaze_jax.training.parallel import Parallel, agree, make_parallel
from rtgaze_jax.training.sources import Item, Prefetcher, Source
from rtgaze_jax.training.state import TrainState, create, export_params, step_key
from rtgaze_jax.training.step import Metrics, make_step

RESULT, WEIGHTS, CONFIG = "result.json", "weights.safetensors", "config.json"
_STOP, _SAVE = 1, 2  # what processes agree on; bits
_AGREE_EVERY = 10  # steps between agreements of several processes, which cost a wait for the devices


class Objective(Protocol):
    """What is trained.

    Optional attributes: images(params, frozen, batch, key) -> {name: uint8 [H, W, 3]}; exports and header
    (transfer.py).
    """

    @property
    def frozen(self) -> Any:
        """Arrays that the loss reads and training does not change; may be {}."""

    @property
    def init(self) -> Callable[[jax.Array], Any]:
        """init(key): parameters, on host or device."""

    @property
    def loss(self) -> Callable[..., tuple[jax.Array, Metrics]]:
        """loss(params, frozen, batch, key, step): mean over the batch's examples, and scalar metrics."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: reason "finished" (all steps done), "time" (max_minutes) or "stopped" (a signal)."""

    reason: str
    step: int
    metrics: dict[str, float]
    signal: int = 0


def _local(tree: Any) -> Any:
    """Replicated arrays as the copies on this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


class Trainer:
    """One run in one folder: state, step, data and everything that watches them."""

    def __init__(
        self,
        config: Any,
        objective: Objective,
        source: Source,
        workdir: Path,
        *,
        parallel: Parallel,
        allow_change: Iterable[str] = (),
        started: float | None = None,
    ):
        """Restores the newest checkpoint of `workdir`, if any. `started`: time.monotonic() from which minutes count."""
        self.config, self.objective, self.source, self.workdir = config, objective, source, workdir
        self.parallel = parallel
        started = time.monotonic() if started is None else started
        self.deadline = started + 60 * config.max_minutes if config.max_minutes else None
        self.plain = fingerprint.plain(config)
        self.optimizer = make_optimizer(config.optim)
        schedule = make_schedule(config.optim, config.total_steps)
        self.step_fn = parallel.compile(
            lambda axis: make_step(
                objective.loss,
                self.optimizer,
                schedule,
                accumulate=config.accumulate,
                ema_decay=config.ema_decay,
                axis_name=axis,
            )
        )
        self.checkpoints = Checkpoints(
            workdir,
            keep_last=config.checkpoint.keep_last,
            keep_best=config.checkpoint.keep_best,
            best=config.checkpoint.best,
        )
        self.notes: list[str] = []
        self.state, self.position = self._begin(tuple(allow_change))
        self.frozen = parallel.replicate(objective.frozen)
        self.step = int(self.state.step)
        self.log = Log(
            config.log,
            workdir,
            step=self.step,
            total_steps=config.total_steps,
            batch_size=config.batch_size,
            deadline=self.deadline,
        )
        self.guards = Guards(config.guards, workdir, self._pin)
        self._since_line, self._since_save = Means(), Means()
        self._latest: dict[str, float] = self.log.last
        self._spent = dict.fromkeys(("data", "device", "host"), 0.0)
        self._images = jax.jit(objective.images) if hasattr(objective, "images") else None

    def _begin(self, allow_change: tuple[str, ...]) -> tuple[TrainState, Any]:
        """The state to start from (a checkpoint, given weights, or fresh) and the source's position there."""
        config = self.config

        def fresh(params: Any) -> TrainState:
            return create(params, self.optimizer, seed=config.seed, ema=config.ema_decay > 0)

        params = self.objective.init(jax.random.fold_in(jax.random.key(config.seed), 1))

        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.parallel.replicated),
            jax.eval_shape(fresh, params),
        )
        restored = self.checkpoints.restore(abstract, lambda saved: fingerprint.check(saved, self.plain, allow_change))
        if restored is not None:
            state, about = restored
            self.notes.append(f"continued from the checkpoint of step {int(state.step)}")
            self.source.set_state(about["position"])
            return state, about["position"]
        position = self.source.get_state()
        state = jax.jit(fresh, out_shardings=self.parallel.replicated)(params)
        if config.init_from:
            params, training, line = transfer.import_params(config.init_from, transfer.host(state.params))
            self.notes.append(line)
            start = training["step"] if config.init_step < 0 else config.init_step
            if config.init_step < 0 and training["position"] is not None:
                position = training["position"]
                self.source.set_state(position)
            state = self.parallel.replicate(
                create(params, self.optimizer, seed=config.seed, ema=config.ema_decay > 0, start=start)
            )
        return state, position

    def _pin(self, step: int) -> Path | None:
        """Keeps the newest checkpoint at or before `step`, waiting for one under way."""
        self.checkpoints.wait()
        earlier = [found for found in self.checkpoints.committed() if found <= step]
        if not earlier or jax.process_index() != 0:
            return None
        return self.checkpoints.pin(earlier[-1], f"jumps/checkpoint_{earlier[-1]}")

    def _observe(self, step: int, metrics: Metrics, item: Item) -> None:
        """Reads the metrics of a step that the devices have finished, or waits for them."""
        before = time.monotonic()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._spent["device"] += time.monotonic() - before
        for name in ("skipped", "streak"):
            values[name] = int(values[name])
        self._since_line.add(values)
        self._since_save.add(values)
        for warning in self.guards.check(step, values, item.host):
            self.log.say(f"warning: {warning}")
        if step % self.config.log.every == 0 or step == self.config.total_steps:
            steps = self._since_line.steps
            self._latest = self._since_line.take() | {k: values[k] for k in ("learning_rate", "skipped", "streak")}
            self._latest |= self.source.stats() if hasattr(self.source, "stats") else {}
            self.log.metrics(step, self._latest, {name: 1000 * spent / steps for name, spent in self._spent.items()})
            self._spent = dict.fromkeys(self._spent, 0.0)

    def _draw(self, item: Item) -> None:
        """Pictures of the first examples, computed on the first device alone."""
        if self._images is None or jax.process_index() != 0:
            return
        rows = {name: value[: self.config.log.image_rows] for name, value in item.host.items()}
        rows["index"] = np.arange(len(next(iter(rows.values()))), dtype=np.int32)
        pictures = self._images(
            _local(export_params(self.state)), _local(self.frozen), rows, step_key(_local(self.state))
        )
        self.log.images(self.step, jax.device_get(pictures))

    def _save(self) -> None:
        means = self._since_save.take()
        best = {self.config.checkpoint.best: means.get(self.config.checkpoint.best, float("inf"))}
        self.checkpoints.save(self.parallel.shared(self.state), self.position, self.plain, best)
        self._saved = time.monotonic()

    def run(self) -> Result:
        """Trains until all steps are done, the time is over or a signal comes; ends with a checkpoint and weights."""
        config = self.config
        for note in self.notes:
            self.log.say(note)
        self._saved = time.monotonic()
        feed = Prefetcher(self.source, self.parallel.place, config.data.prefetch)
        compiling = self._compile()
        pending: tuple[int, Metrics, Item] | None = None
        reason = "finished"
        with Signals() as signals:
            try:
                while self.step < config.total_steps:
                    began = time.monotonic()
                    item = next(feed)
                    drawn = time.monotonic()
                    self.state, metrics = self.step_fn(self.state, self.frozen, item.batch)
                    self.step, self.position = self.step + 1, item.position
                    self._spent["data"] += drawn - began
                    self._spent["host"] += time.monotonic() - drawn
                    if pending is None:  # the first call compiled
                        self.log.say(f"first step compiled in {compiling + time.monotonic() - drawn:.0f} s")
                        self._spent = dict.fromkeys(self._spent, 0.0)
                        self.log.restart_clock()
                    else:
                        self._observe(*pending)
                    pending = (self.step, metrics, item)
                    self.checkpoints.check()
                    if config.log.images_every and self.step % config.log.images_every == 0:
                        self._draw(item)
                    due = self._due(signals)
                    if self.step == config.total_steps:
                        break
                    if due & _STOP:
                        reason = "time" if self._late() else "stopped"
                        break
                    if due & _SAVE:
                        self._save()
                if pending is not None:
                    self._observe(*pending)
                self._save()
                self.checkpoints.wait()
                return self._finish(Result(reason, self.step, self._latest, signals.received))
            finally:
                feed.close()
                self.log.close()

    def _compile(self) -> float:
        """Compiles the step while the source still makes its first batch, if it can say what batches look like.

        Returns the seconds that took.
        """
        began = time.monotonic()
        if hasattr(self.source, "example"):
            batch = self.parallel.place(self.source.example())
            program: Any = self.step_fn  # jit or pmap
            program.lower(self.state, self.frozen, batch).compile()
        return time.monotonic() - began

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _due(self, signals: Signals) -> int:
        """What to do after this step, the same on all processes."""
        config = self.config.checkpoint
        regular = _SAVE if config.every_steps and self.step % config.every_steps == 0 else 0
        if jax.process_count() > 1 and self.step % _AGREE_EVERY:
            return regular
        now = time.monotonic()
        wish = _STOP if signals.received or self._late() else 0
        if config.every_seconds and now - self._saved >= config.every_seconds:
            wish |= _SAVE
        return regular | agree(wish)

    def _finish(self, result: Result) -> Result:
        if jax.process_index() == 0:
            transfer.export(self.workdir / WEIGHTS, self.state, self.position, self.objective, result.metrics)
            files.write_bytes(self.workdir / RESULT, json.dumps(dataclasses.asdict(result), indent=1).encode())
        self.log.say(
            f"{result.reason} at step {result.step} of {self.config.total_steps}; weights in {self.workdir / WEIGHTS}"
        )
        return result

    def close(self) -> None:
        """Finishes writing and stops the source."""
        self.source.close()
        self.checkpoints.close()


def train(
    config: Any,
    objective: Objective,
    source: Source,
    workdir: Path,
    *,
    allow_change: Iterable[str] = (),
    parallel: Parallel | None = None,
    started: float | None = None,
) -> Result:
    """Runs or continues the run in `workdir`. See configs/ for `config`. KeyboardInterrupt after a Ctrl-C (saved)."""
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    parallel = parallel or make_parallel(config.parallel)
    with sole_user(workdir):
        trainer = Trainer(
            config, objective, source, workdir, parallel=parallel, allow_change=allow_change, started=started
        )
        if jax.process_index() == 0:
            files.write_bytes(workdir / CONFIG, json.dumps(trainer.plain, indent=1).encode())
        try:
            result = trainer.run()
        finally:
            trainer.close()
    if result.signal == signal.SIGINT:
        raise KeyboardInterrupt
    return result
