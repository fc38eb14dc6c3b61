"""What a pipeline brings to the service that trains on a running stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic

from ptychoflow.trainer.interface.pipeline import Pipeline
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.checkpointing import RememberingAlone
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.training.averaging import NetworkT
from ptychoflow.trainer.training.learner import Learner


class Recipe(ABC, Generic[NetworkT]):
    """Makes what one pipeline's training consists of, for one announced stream. The same on all ranks."""

    pipeline: Pipeline
    own: Mapping[str, RememberingAlone]
    """What every rank has its own share of, for checkpoints."""

    @abstractmethod
    def network(self) -> NetworkT:
        """Return the network that training starts from.

        Raises:
            UserError: there is no such network, or the initial weights do not fit it.
        """

    @abstractmethod
    def describe(self, network: NetworkT) -> str:
        """Return everything that fixes a network, as JSON."""

    @abstractmethod
    def initial(self) -> Writer:
        """Return what writes the weights that training starts from."""

    def fit(self, network: NetworkT) -> None:
        """Adapt a new network to the first samples that have arrived. Collective."""

    @abstractmethod
    def outcome(
        self, learner: Learner[NetworkT], *, publication: Publication | None, report: StepReport
    ) -> PublishingCallback[NetworkT]:
        """Return what evaluates and publishes."""
