"""The single trainings that an experiment is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ptychoflow.buffer.names import TransportName
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings, Sharding
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.methods import Method

STRATEGIES, PLAIN = "strategies", "plain"
BUFFER_SHARE, REPRESENTATIVES, RANKS, DRAWS = "buffer_share", "representatives", "ranks", "draws"
SWEEPS = (BUFFER_SHARE, REPRESENTATIVES, RANKS, DRAWS)


@dataclass(frozen=True)
class Case:
    """One method with one seed."""

    part: str
    """Of the results: `strategies`, `plain`, or one of `SWEEPS`."""
    method: Method
    seed: int
    ranks: int
    buffer_share: float
    representatives: int
    transport: TransportName
    sharding: Sharding

    def training(self, settings: ClassificationSettings, *, training_set: int) -> ClassificationSettings:
        """Return the settings of this case; `training_set` is the number of images in it."""
        capacity = max(1, round(self.buffer_share * training_set))
        buffer = settings.buffer.model_copy(
            update={"capacity": capacity, "representatives": self.representatives, "transport": self.transport}
        )
        return settings.model_copy(
            update={"strategy": self.method.strategy, "buffer": buffer, "buffer_share": self.buffer_share}
        )

    def images(self, settings: ImageSettings) -> ImageSettings:
        """Return the settings of this case."""
        return settings.model_copy(update={"sharding": self.sharding})

    def parameters(self) -> dict[str, Any]:
        """Return plain JSON values that tell this case from all others of its experiment."""
        return {
            "seed": self.seed,
            "ranks": self.ranks,
            "buffer_share": self.buffer_share,
            "representatives": self.representatives,
            "transport": self.transport,
            "sharding": self.sharding.value,
        }

    @property
    def name(self) -> str:
        """Tells this case from all others of its experiment; the same on any number of ranks, unless that is swept."""
        parts = [self.part, self.method.value, f"seed-{self.seed}", f"share-{self.buffer_share:g}"]
        parts += [f"representatives-{self.representatives}", self.transport, self.sharding.value]
        return "-".join([*parts, f"ranks-{self.ranks}"] if self.part == RANKS else parts)


def all_cases(config: ClassificationExperiment) -> list[Case]:
    """Return what the configuration asks for: all methods with the first seed, then with the next."""
    return [case for seed in range(config.experiment.seeds) for case in _cases(config, seed)]


def _cases(config: ClassificationExperiment, seed: int) -> Iterator[Case]:
    asked = config.experiment
    base = Case(
        STRATEGIES,
        Method.ER,
        seed,
        ranks=asked.ranks,
        buffer_share=config.training.buffer_share,
        representatives=config.training.buffer.representatives,
        transport=config.training.buffer.transport,
        sharding=config.images.sharding,
    )
    yield from (replace(base, method=method) for method in asked.methods)
    if asked.plain:
        yield from (replace(base, part=PLAIN, method=method) for method in (Method.ER, Method.DERPP))
    yield from (replace(base, part=BUFFER_SHARE, buffer_share=share) for share in asked.buffer_shares)
    yield from (replace(base, part=REPRESENTATIVES, representatives=count) for count in asked.representatives)
    yield from (replace(base, part=RANKS, ranks=count) for count in asked.rank_counts)
    if asked.compare_draws:
        apart = replace(base, part=DRAWS, sharding=Sharding.CLASSES)
        yield from (apart, replace(apart, transport="local"))
