"""Notices a validation loss that gets worse from perspective to perspective."""

from __future__ import annotations

from collections.abc import Mapping, Set

from ptychoflow.trainer.checkpoints.state_file import State

MARGIN = 0.01
"""Rises up to this share of the loss are the noise of an evaluation."""


class Worsening:
    """Compares the evaluation at the end of each perspective with the one before.

    The loss has worsened if its mean over the perspectives that had ended by then is higher than it was by more than
    1 %, or is not finite. Perspectives that ended later do not count: they may merely be harder.

    Args:
        evaluations: worse ones in a row that deserve a warning.
    """

    def __init__(self, evaluations: int) -> None:
        self._evaluations = evaluations
        self._ended: set[int] = set()
        self._before: Mapping[int, float] = {}
        self._at_first: Mapping[int, float] = {}
        self._in_a_row = 0

    def compare(self, perspective: int, losses: Mapping[int, float]) -> str | None:
        """Take in the losses per perspective at the end of one; return a warning when too many in a row were worse.

        A row that goes on is warned of once.
        """
        shared = self._ended & self._before.keys() & losses.keys()
        worse = bool(shared) and not _mean(losses, shared) <= _mean(self._before, shared) * (1 + MARGIN)
        self._ended.add(perspective)
        self._before = losses
        if not worse:
            self._at_first, self._in_a_row = {index: losses[index] for index in self._ended & losses.keys()}, 0
            return None
        self._in_a_row += 1
        return self._warning(losses) if self._in_a_row == self._evaluations else None

    def state(self) -> State:
        """Return what the next comparison goes on from."""
        losses = {"before": self._before, "at_first": self._at_first}
        return {
            "ended": sorted(self._ended),
            "in_a_row": self._in_a_row,
            **{name: [*found.items()] for name, found in losses.items()},
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._ended, self._in_a_row = set(state["ended"]), state["in_a_row"]
        self._before, self._at_first = dict(state["before"]), dict(state["at_first"])

    def _warning(self, losses: Mapping[int, float]) -> str:
        known = self._at_first.keys() & losses.keys()
        span = f"each of the last {self._in_a_row} perspectives" if self._in_a_row > 1 else "the last perspective"
        return (
            f"validation has worsened after {span}: on those before, the loss rose from "
            f"{_mean(self._at_first, known):.4f} to {_mean(losses, known):.4f}"
        )


def _mean(losses: Mapping[int, float], perspectives: Set[int]) -> float:
    return sum(losses[perspective] for perspective in perspectives) / len(perspectives)
