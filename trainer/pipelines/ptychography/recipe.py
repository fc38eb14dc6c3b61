"""The parts of the training on a scan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist

from ptychoflow.buffer.schema import DTypeName
from ptychoflow.streaming.messages import ScanStart
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.ptychonn_settings import require_fit
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.models.weights_file import weights_writer
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.recipe import Recipe
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledStore
from ptychoflow.trainer.pipelines.ptychography.callback import PtychographyCallback
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.head_start import HeadStart
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class PtychographyRecipe(Recipe[FrameNetwork]):
    """Frames and patches.

    Args:
        settings: model, periods.
        scan: announces the shapes.
        ingest: the stream.
        rank: this process.
        seed: of a new network.
        frame_dtype: numpy name; None where no sample has come.

    Raises:
        UserError: the network does not fit the scan.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        scan: ScanStart,
        *,
        ingest: SampleIngest,
        rank: Rank,
        seed: int,
        frame_dtype: str | None,
    ) -> None:
        self._settings = settings
        self._config = settings.network(scan.frame_shape_px, scan.target_shape_px)
        require_fit(settings.model, scan.frame_shape_px, scan.target_shape_px)
        super().__init__(settings, self._config, ingest=ingest, rank=rank, seed=seed)
        # before the first sample, the smallest that may come: no buffer is refused then that may have room
        dtype = cast(DTypeName, frame_dtype or "uint8")
        self.pipeline = Ptychography(scan.frame_shape_px, scan.target_shape_px, frame_dtype=dtype)
        self._mean_patch = MeanPatch(scan.target_shape_px, device=rank.device)
        self.own = {"mean_patch": self._mean_patch}

    def _untrained(self) -> FrameNetwork:
        return FrameNetwork(self._config)

    def _load(self, network: FrameNetwork, path: Path) -> None:
        load_initial_weights(network, path)

    def initial_weights_writer(self) -> Writer:
        """Return what writes the weights that training starts from, with a constant that has learnt nothing."""
        return self._writer_before_samples(self.network())

    def head_start(self, store: UnlabelledStore, publish: Callable[[Writer], None]) -> HeadStart | None:
        """Return what learns to explain frames by their probe, if the settings give it any time."""
        if self._settings.head_start_s == 0.0:
            return None
        return HeadStart(
            self.network(),
            store,
            settings=self._settings,
            device=self._rank.device,
            precision=self._rank.precision,
            publish=lambda network: publish(self._writer_before_samples(network)),
            seed=self._seed,
        )

    def _writer_before_samples(self, network: FrameNetwork) -> Writer:
        nothing_learned = MeanPatch(self._config.target_shape_px, device=torch.device("cpu")).on_this_rank()
        return weights_writer(network, nothing_learned)

    def fit_to_first_samples(self, network: FrameNetwork) -> None:
        """Choose the network's input scale from the first samples that wait on any rank. Collective."""
        waiting = self._ingest.queue.first_samples()
        power_and_ranks = torch.zeros(2, dtype=torch.float64)
        if waiting is not None:
            power_and_ranks[0] = network.input_power(torch.from_numpy(waiting["diffraction"]))
            power_and_ranks[1] = 1.0
        if dist.is_initialized():
            dist.all_reduce(power_and_ranks)
        power, ranks = power_and_ranks.tolist()
        network.scale_input_to(power / max(ranks, 1.0))
        log.info("input scale %.3g", network.input_scale.item())

    def callback(
        self, learner: Learner[FrameNetwork], *, publication: Publication | None, report: StepReport
    ) -> PtychographyCallback:
        """Return what measures validation losses."""
        return PtychographyCallback(
            self._settings,
            ingest=self._ingest,
            learner=learner,
            evaluator=Evaluator(precision=self._rank.precision, device=self._rank.device),
            mean_patch=self._mean_patch,
            publication=publication,
            report=report,
        )
