"""What a pipeline brings to the service that trains on a running stream."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol

import torch
from torch import nn

from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.interface.pipeline import Pipeline
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.checkpointing import StatefulPerRank
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledStore
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.training.averaging import NetworkT
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class HeadStart(Protocol):
    """Teaches a network while the first ground truth is still being computed."""

    def go_on(self) -> bool:
        """Make a step; return False if there is nothing to learn from, or no more time."""

    def end(self) -> nn.Module | None:
        """Return the network to train from now on, or None if what it has learnt is of no use."""


class Recipe(ABC, Generic[NetworkT]):
    """Makes what one pipeline's training consists of, for one announced stream. The same on all ranks.

    Args:
        settings: model, periods.
        config: fixes the network.
        ingest: the stream.
        rank: this process.
        seed: of a new network.
    """

    pipeline: Pipeline
    own: Mapping[str, StatefulPerRank] = {}
    """What every rank has its own share of, for checkpoints."""

    def __init__(
        self, settings: StreamSettings, config: Settings, *, ingest: SampleIngest, rank: Rank, seed: int
    ) -> None:
        self._init_weights, self._ingest, self._rank, self._seed = settings.init_weights, ingest, rank, seed
        self.identity = config.model_dump_json()
        """Everything that fixes the network, as JSON."""

    def network(self) -> NetworkT:
        """Return the network that training starts from.

        Raises:
            UserError: there is no such network, or the initial weights do not fit it.
        """
        torch.manual_seed(self._seed)
        network = self._untrained()
        if self._init_weights is not None:
            self._load(network, self._init_weights)
            log.info("training starts from %s", self._init_weights)
        return network

    @abstractmethod
    def _untrained(self) -> NetworkT:
        """Return a new network."""

    @abstractmethod
    def _load(self, network: NetworkT, path: Path) -> None:
        """Load the weights of an earlier run, or raise UserError."""

    @abstractmethod
    def initial_weights_writer(self) -> Writer:
        """Return what writes the weights that training starts from."""

    def head_start(self, store: UnlabelledStore, publish: Callable[[Writer], None]) -> HeadStart | None:
        """Return what learns from frames before there is ground truth, if this pipeline can; on rank 0.

        Args:
            store: gets the frames.
            publish: takes what writes weights that are of use.
        """
        return None

    def fit_to_first_samples(self, network: NetworkT) -> None:
        """Adapt a new network to the first samples that have arrived. Collective."""

    @abstractmethod
    def callback(
        self, learner: Learner[NetworkT], *, publication: Publication | None, report: StepReport
    ) -> PublishingCallback[NetworkT]:
        """Return what evaluates and publishes."""
