"""The parts of the training on a scan."""

from __future__ import annotations

import logging
from typing import cast

import torch

from ptychoflow.buffer.schema import DTypeName
from ptychoflow.streaming.messages import ScanStart
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.settings import NetworkConfig
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.models.weights_file import weights_writer
from ptychoflow.trainer.online.ingest import Arrivals
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.recipe import Recipe
from ptychoflow.trainer.online.start import fit_input_scale
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.ptychography.callback import PtychographyCallback
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.settings import TrainerSettings
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class PtychographyRecipe(Recipe[FrameNetwork]):
    """Frames and patches.

    Args:
        settings: model, periods.
        scan: announces the shapes.
        arrivals: the stream.
        rank: this process.
        seed: of a new network.
        frame_dtype: numpy name; None where no sample has come.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        scan: ScanStart,
        *,
        arrivals: Arrivals,
        rank: Rank,
        seed: int,
        frame_dtype: str | None,
    ) -> None:
        self._settings, self._scan, self._arrivals = settings, scan, arrivals
        self._rank, self._seed = rank, seed
        # Without a single sample, nothing will ever have this dtype.
        dtype = cast(DTypeName, frame_dtype or "uint16")
        self.pipeline = Ptychography(scan.frame_shape_px, scan.target_shape_px, frame_dtype=dtype)
        self._mean_patch = MeanPatch(scan.target_shape_px, device=rank.device)
        self.own = {"mean_patch": self._mean_patch}

    def network(self) -> FrameNetwork:
        """Return the network that training starts from; without initial weights its input scale is still open."""
        config = NetworkConfig(
            model=self._settings.model,
            frame_shape_px=self._scan.frame_shape_px,
            target_shape_px=self._scan.target_shape_px,
            amplitude_scale=self._settings.amplitude_scale,
        )
        torch.manual_seed(self._seed)
        network = FrameNetwork(config)
        if self._settings.init_weights is not None:
            load_initial_weights(network, self._settings.init_weights)
            log.info("training starts from %s", self._settings.init_weights)
        return network

    def describe(self, network: FrameNetwork) -> str:
        """Return layout and shapes."""
        return network.config.model_dump_json()

    def initial(self) -> Writer:
        """Return what writes the weights that training starts from, with a constant that has learnt nothing."""
        nothing_learned = MeanPatch(self._scan.target_shape_px, device=torch.device("cpu")).on_this_rank()
        return weights_writer(self.network(), nothing_learned)

    def fit(self, network: FrameNetwork) -> None:
        """Choose the input scale."""
        fit_input_scale(network, self._arrivals)
        log.info("input scale %.3g", network.input_scale.item())

    def outcome(
        self, learner: Learner[FrameNetwork], *, publication: Publication | None, report: StepReport
    ) -> PtychographyCallback:
        """Return what measures validation losses."""
        return PtychographyCallback(
            self._settings,
            arrivals=self._arrivals,
            learner=learner,
            evaluator=Evaluator(precision=self._rank.precision, device=self._rank.device),
            mean_patch=self._mean_patch,
            publication=publication,
            report=report,
        )
