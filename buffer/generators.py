"""Sources of randomness, one per rank and purpose, and their state as text."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Generators:
    """One generator per purpose, so that serving other ranks does not change what is stored here."""

    select: np.random.Generator
    """Which samples of a minibatch are candidates; used by the caller's thread."""
    policy: np.random.Generator
    """What candidates replace."""
    draw: np.random.Generator
    """Which ranks and items are drawn for this rank."""
    serve: np.random.Generator
    """Which items are drawn for other ranks."""

    def state(self) -> str:
        """The states of all generators, as JSON."""
        return json.dumps({name: generator.bit_generator.state for name, generator in vars(self).items()})

    def restore(self, state: str) -> None:
        """Go on from a state that `state` returned."""
        for name, generator_state in json.loads(state).items():
            getattr(self, name).bit_generator.state = generator_state

    def reseed(self, *entropy: int) -> None:
        """Start anew, as if made from `entropy`."""
        self.restore(make_generators(*entropy).state())


def make_generators(*entropy: int) -> Generators:
    """Independent generators: made from a seed and a rank, ranks with the same seed never draw alike."""
    children = np.random.SeedSequence(entropy).spawn(4)
    return Generators(*(np.random.Generator(np.random.PCG64(child)) for child in children))
