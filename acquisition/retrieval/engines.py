"""Choice of the phase-retrieval engine. Engines are imported when asked for: each brings a large library."""

from __future__ import annotations

import importlib.util

from ptychoflow.acquisition.retrieval.engine import Engine, require_square
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import GroundTruthSource

RETRIEVING = (GroundTruthSource.PTYCHI, GroundTruthSource.TIKE)
"""Sources that are phase retrieval, and the names of the libraries that do it."""


def check_installed(source: GroundTruthSource) -> None:
    """Raise `UserError` when `source` is phase retrieval and its library is not installed. Imports nothing."""
    if source in RETRIEVING and importlib.util.find_spec(source.value) is None:
        raise UserError(
            f"retrieval.source is {source.value}, which is not installed: "
            f"install it, or set retrieval.source to {GroundTruthSource.PTYCHI.value}"
        )


def check_frame_shape(source: GroundTruthSource, shape_px: tuple[int, int]) -> None:
    """Raise `UserError` when `source` is phase retrieval that takes no frames of this shape (y, x)."""
    if source is GroundTruthSource.TIKE:
        require_square(shape_px)


def make_engine(settings: RetrievalSettings) -> Engine:
    """Return the engine for `settings.source`.

    Raises:
        UserError: the engine's library cannot be imported, or the device asked for is not there.
        ValueError: the source is no phase retrieval.
    """
    match settings.source:
        case GroundTruthSource.PTYCHI:
            from ptychoflow.acquisition.retrieval.ptychi_engine import PtychiEngine  # noqa: PLC0415

            return PtychiEngine(settings)
        case GroundTruthSource.TIKE:
            from ptychoflow.acquisition.retrieval.tike_engine import TikeEngine  # noqa: PLC0415

            return TikeEngine(settings)
        case _:
            raise ValueError(f"{settings.source} is no phase-retrieval engine")
