"""What a policy is: one decision per candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ptychoflow.buffer.index import Index

APPEND: Final = -1
"""Decision: add the candidate as one more live item."""
REJECT: Final = -2
"""Decision: do not store the candidate."""


class Candidate(NamedTuple):
    """What is known of an offered item, apart from its tensors."""

    label: int
    score: float = 0.0
    features: npt.NDArray[np.float32] | None = None


class Policy(ABC):
    """Decides which candidates are stored and which live items they replace.

    A policy of one's own derives from this class, implements `place` and is passed to the buffer as an object. Any
    randomness must come from the generator it is given, so that checkpoints restore it.
    """

    needs_scores: bool = False
    """Whether `offer` must be given one score per sample."""
    needs_features: bool = False
    """Whether `offer` must be given one feature vector per sample."""
    open_classes: bool = False
    """Whether labels may be any number from 0 up, and classes share the capacity without quotas."""

    @abstractmethod
    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """APPEND, REJECT, or the position of the live item that the candidate replaces.

        `index` describes the live items of this rank, and `index.seen` already counts this candidate. Called on the
        buffer's own thread. APPEND is only valid while `index.size < index.capacity`.
        """

    def observe(self, candidate: Candidate) -> None:
        """Learn from a candidate before it is placed; does nothing unless a policy keeps statistics of the stream."""

    def state_dict(self) -> dict[str, object]:
        """What the policy must remember beyond the index: tensors, numbers and text only."""
        return {}

    def load_state_dict(self, states: list[dict[str, object]], *, exact: bool) -> None:
        """Take over what was remembered, after the items themselves were restored.

        `exact`: `states` is the one that this rank saved, and its items stand as they stood; otherwise it holds the
        states of all ranks of the run, whose items were dealt anew, oldest first.
        """
