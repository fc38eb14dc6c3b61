"""The single trainings that an experiment on images is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ptychoflow.buffer.names import TransportName
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings, Sharding
from ptychoflow.workflow.experiments.case import STRATEGIES, Case
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.methods import Method

PLAIN, SWEEPS = "plain", "sweeps"
BUFFER_SHARE, REPRESENTATIVES, RANKS, DRAWS = "buffer_share", "representatives", "ranks", "draws"


class ClassificationCase(Case):
    """One method with one seed on the tasks of a folder of images."""

    part: str
    """Of the results: `strategies`, `plain`, or the name of a sweep."""
    buffer_share: float
    representatives: int
    transport: TransportName
    sharding: Sharding
    images: ImageSettings
    """Data set and tasks."""
    training: ClassificationSettings
    """What all cases share."""
    checkpoint_epochs: int | None
    """Write a checkpoint after so many epochs of a task; None writes none."""

    @property
    def name(self) -> str:
        """The same on any number of ranks, unless that is compared."""
        parts = [self.part, self.method.value, f"seed-{self.seed}", f"share-{self.buffer_share:g}"]
        parts += [f"representatives-{self.representatives}", self.transport, self.sharding.value]
        return "-".join([*parts, f"ranks-{self.ranks}"] if self._ranks_matter else parts)

    @property
    def place(self) -> tuple[str, str]:
        """Sweeps have a part of the results for all of them."""
        return (self.part, self.method.value) if self.part in (STRATEGIES, PLAIN) else (SWEEPS, self.part)

    @property
    def processes(self) -> int:
        """The plain form has one."""
        return 1 if self.part == PLAIN else self.ranks

    @property
    def together(self) -> str:
        """Processes keep the images that they have read."""
        return str(self.processes)

    @property
    def learning(self) -> ClassificationSettings:
        """Device, precision and threads of its ranks."""
        return self.training

    @property
    def _ranks_matter(self) -> bool:
        """Whether another number of ranks is another case; a plain step has the samples of so many."""
        return self.part in (RANKS, PLAIN)

    def identity(self) -> dict[str, Any]:
        """Return what tells it from all others: a training may go on, and be done, on another number of ranks."""
        found = self.parameters()
        if not self._ranks_matter:
            del found["ranks"]
        return found

    def parameters(self) -> dict[str, Any]:
        """Return plain JSON values that its figures stand beside."""
        return {
            "seed": self.seed,
            "ranks": self.ranks,
            "buffer_share": self.buffer_share,
            "representatives": self.representatives,
            "transport": self.transport,
            "sharding": self.sharding.value,
        }

    def own_training(self, *, training_set: int) -> ClassificationSettings:
        """Return the settings of this case; `training_set` is the number of images in it."""
        capacity = max(1, round(self.buffer_share * training_set))
        buffer = self.training.buffer.model_copy(
            update={"capacity": capacity, "representatives": self.representatives, "transport": self.transport}
        )
        return self.training.model_copy(
            update={"strategy": self.method.strategy, "buffer": buffer, "buffer_share": self.buffer_share}
        )


def all_cases(config: ClassificationExperiment, *, checkpoints: bool = True) -> list[ClassificationCase]:
    """Return what the configuration asks for: all methods with the first seed, then with the next."""
    return [case for seed in range(config.experiment.seeds) for case in _cases(config, seed, checkpoints=checkpoints)]


def _cases(config: ClassificationExperiment, seed: int, *, checkpoints: bool) -> Iterator[ClassificationCase]:
    asked = config.experiment
    base = ClassificationCase(
        part=STRATEGIES,
        method=Method.ER,
        seed=seed,
        ranks=asked.ranks,
        buffer_share=config.training.buffer_share,
        representatives=config.training.buffer.representatives,
        transport=config.training.buffer.transport,
        sharding=config.images.sharding,
        images=config.images,
        training=config.training,
        checkpoint_epochs=asked.checkpoint_epochs if checkpoints else None,
    )

    def changed(**fields: Any) -> ClassificationCase:
        return base.model_copy(update=fields)

    yield from (changed(method=method) for method in asked.methods)
    if asked.plain:
        yield from (changed(part=PLAIN, method=method) for method in (Method.ER, Method.DERPP))
    yield from (changed(part=BUFFER_SHARE, buffer_share=share) for share in asked.buffer_shares)
    yield from (changed(part=REPRESENTATIVES, representatives=count) for count in asked.representatives)
    yield from (changed(part=RANKS, ranks=count) for count in asked.rank_counts)
    if asked.compare_draws:
        apart = changed(part=DRAWS, sharding=Sharding.CLASSES)
        yield from (apart, apart.model_copy(update={"transport": "local"}))
