"""Whether a training still goes well: a loss that is no number, or that has risen far above its lowest.

watch = Watch(factor=4.0)
if reason := watch.amiss(loss, grad_norm): ...     # after each step
if watch.calm: ...                                 # only then is a checkpoint worth keeping
"""

from __future__ import annotations

import math

#: Steps that the mean looks back on, about; and steps before which a rise says nothing.
WINDOW = 50
#: No batch is so many times as hard as the mean of those before.
LEAP = 100.0


class Watch:
    """Follows the mean of the loss over some WINDOW steps; `factor` times its lowest means divergence.

    Attributes:
        mean: the running mean; null before the first step.
        lowest: its lowest so far, once WINDOW steps are seen.
        steps: how many losses were seen.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.mean: float | None = None
        self.lowest = math.inf
        self.steps = 0

    def amiss(self, loss: float, grad_norm: float) -> str | None:
        """What is wrong, given the loss of a step and the norm of its gradient; None if nothing is."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"loss {loss:.3g}, gradient norm {grad_norm:.3g}"
        if self.mean is not None and loss > LEAP * self.mean:
            return f"loss {loss:.3g}, {loss / self.mean:.0f} times its mean before"
        self.mean = (
            loss if self.mean is None else self.mean + (loss - self.mean) / min(self.steps + 1, WINDOW)
        )
        self.steps += 1
        if self.steps < WINDOW:
            return None
        self.lowest = min(self.lowest, self.mean)
        if self.mean > self.factor * self.lowest:
            return f"the mean loss rose to {self.mean:.3g}, {self.mean / self.lowest:.1f} times its lowest"
        return None

    @property
    def calm(self) -> bool:
        """Whether the loss is not on its way to divergence: at most half way to it."""
        return self.mean is None or self.mean <= (1.0 + self.factor) / 2.0 * self.lowest

    def state(self) -> dict[str, float | int | None]:
        """What a resumed run needs to judge as this one would; plain JSON."""
        return {
            "mean": self.mean,
            "lowest": None if math.isinf(self.lowest) else self.lowest,
            "steps": self.steps,
        }

    def load(self, state: dict[str, float | int | None]) -> None:
        lowest, steps = state["lowest"], state["steps"]
        self.mean, self.lowest = state["mean"], math.inf if lowest is None else float(lowest)
        self.steps = int(steps or 0)
