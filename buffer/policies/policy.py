"""What a policy is: one decision per candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np

from ptychoflow.buffer.index import Candidate, Index

APPEND: Final = -1
"""Decision: add the candidate as one more live item."""
REJECT: Final = -2
"""Decision: do not store the candidate."""


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
        """Decide on one candidate; called on the buffer's own thread, which ends if this raises.

        Args:
            candidate: What was offered.
            index: The live items of this rank; `index.seen` already counts this candidate.
            rng: Where randomness must come from.

        Returns:
            APPEND, valid only while `index.size < index.capacity`; REJECT; or the position of the live item that the
            candidate replaces.
        """

    def observe(self, candidate: Candidate) -> None:
        """Learn from a candidate before it is placed; does nothing unless a policy keeps statistics of the stream."""

    def state_dict(self) -> dict[str, object]:
        """Return what the policy must remember beyond the index: tensors, numbers and text only."""
        return {}

    def load_state_dict(self, states: list[dict[str, object]], *, exact: bool) -> None:
        """Take over what was remembered, after the items themselves were restored.

        Args:
            states: What `state_dict` returned.
            exact: `states` is the one that this rank saved, and its items stand as they stood; otherwise it holds the
                states of all ranks whose items were dealt anew, oldest first.
        """

    def take_share(self, part: float) -> None:
        """Go on with a part of what was just loaded; does nothing unless a policy counts samples.

        Called where items of all ranks were dealt anew, so that the ranks together remember the run once.

        Args:
            part: this rank's part of the capacity, above 0; those of all ranks sum to 1.
        """
