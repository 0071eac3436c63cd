"""Looking away now and then, as people do: an unbroken stare is felt as odd.

Contact and look-aways alternate; eyes jump between them along the minimum-jerk curve, in the time that saccades of
that size take (main sequence: 21 ms + 2.2 ms per degree, Bahill, Clark, Stark, 1975). Everything follows from the
seed, so the offset at a moment does not depend on which frames were asked for.
"""

import math

import numpy as np

_AWAY_SECONDS, _AWAY_SPREAD = 1.1, 0.35  # median of a look-away, and its spread as a factor e^x
_CONTACT_SPREAD = 0.5
_SIZE, _SIZE_SPREAD, _SIZE_LIMITS = 11.0, 3.0, (6.0, 18.0)  # degrees
_SHORTEST = 0.35  # seconds
_UP_SHARE = 0.15  # most look-aways go to the side or down
MAX_SHARE = 0.6


def saccade_seconds(degrees: float) -> float:
    """How long a saccade of a size takes."""
    return 0.021 + 0.0022 * degrees


def minimum_jerk(x: float) -> float:
    """Smooth progress from 0 to 1 for x from 0 to 1."""
    x = min(max(x, 0.0), 1.0)
    return x * x * x * (10 - 15 * x + 6 * x * x)


class LookAway:
    """Seeded look-aways that fill a share of the time (0 none, at most MAX_SHARE)."""

    def __init__(self, share: float, seed: int = 0):
        self.share = share
        self._random = np.random.default_rng([seed, 7])
        # moments at which a jump begins, and the offset (pitch, yaw) that it goes to
        self._starts: list[float] = [0.0]
        self._goals: list[tuple[float, float]] = [(0.0, 0.0)]

    def offset(self, time: float) -> tuple[float, float]:
        """(pitch, yaw) in degrees to add to the gaze at `time` seconds."""
        if self.share <= 0 or time < 0:
            return 0.0, 0.0
        while self._starts[-1] <= time:
            self._extend()
        i = int(np.searchsorted(self._starts, time, side="right")) - 1
        goal, before = self._goals[i], self._goals[max(i - 1, 0)]
        size = math.hypot(goal[0] - before[0], goal[1] - before[1])
        done = minimum_jerk((time - self._starts[i]) / saccade_seconds(size))
        return before[0] + done * (goal[0] - before[0]), before[1] + done * (goal[1] - before[1])

    def _extend(self) -> None:
        """Plans one more contact and one more look-away."""
        contact = _AWAY_SECONDS * (1 - self.share) / self.share
        lengths = contact, _AWAY_SECONDS
        spreads = _CONTACT_SPREAD, _AWAY_SPREAD
        for length, spread, goal in zip(lengths, spreads, (self._direction(), (0.0, 0.0)), strict=True):
            # divided by the mean of the log-normal, so that the share of time comes out as asked for
            seconds = length * math.exp(spread * float(self._random.standard_normal()) - spread**2 / 2)
            self._starts.append(self._starts[-1] + max(seconds, _SHORTEST))
            self._goals.append(goal)

    def _direction(self) -> tuple[float, float]:
        size = float(np.clip(self._random.normal(_SIZE, _SIZE_SPREAD), *_SIZE_LIMITS))
        side = 1.0 if self._random.random() < 0.5 else -1.0
        steep = abs(float(self._random.normal(0, 0.35)))  # radians from the horizontal
        up = 1.0 if self._random.random() < _UP_SHARE else -1.0
        return up * size * math.sin(steep), side * size * math.cos(steep)
