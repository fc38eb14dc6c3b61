"""Whether the frames of a scan can be learnt with these settings, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ptychoflow.trainer.models.ptychonn_settings import require_fit
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import LearningSettings
from ptychoflow.trainer.strategies.buffer_check import check_buffer


@dataclass(frozen=True)
class Shapes:
    """What samples of a scan look like; pairs are (y, x)."""

    frame_px: tuple[int, int]
    patch_px: tuple[int, int]
    dtype: str = "uint8"
    """In which frames travel; the smallest one where it is not known, so that nothing is refused that may fit."""


def check_network(settings: TrainerSettings, shapes: Shapes) -> None:
    """Look at the network and at the weights that it starts from; loads PyTorch only where there are some.

    Raises:
        UserError: the network cannot map such frames to such patches, or the initial weights cannot be used for that.
    """
    require_fit(settings.model, shapes.frame_px, shapes.patch_px)
    if settings.init_weights is not None:
        from ptychoflow.trainer.models.frame_network import FrameNetwork  # noqa: PLC0415
        from ptychoflow.trainer.models.initial_weights import load_initial_weights  # noqa: PLC0415

        load_initial_weights(FrameNetwork(settings.network(shapes.frame_px, shapes.patch_px)), settings.init_weights)


def check_scan_buffer(settings: LearningSettings, shapes: Shapes, *, ranks: int) -> None:
    """Look at the rehearsal buffer; loads PyTorch only where it is given in bytes, or UCX is asked for.

    Raises:
        UserError: as `check_buffer`.
    """

    def needed() -> int:
        from ptychoflow.buffer.schema import DTypeName  # noqa: PLC0415
        from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography  # noqa: PLC0415
        from ptychoflow.trainer.strategies.factory import item_bytes  # noqa: PLC0415

        pipeline = Ptychography(shapes.frame_px, shapes.patch_px, frame_dtype=cast(DTypeName, shapes.dtype))
        return item_bytes(settings.strategy, pipeline)

    check_buffer(settings, ranks=ranks, item_bytes=needed)
