"""Choice of the phase-retrieval engine. Engines are imported when asked for: each brings a large library."""

from __future__ import annotations

from acquisition.retrieval.engine import Engine
from acquisition.retrieval.settings import RetrievalSettings
from streaming.messages import GroundTruthSource


def make_engine(settings: RetrievalSettings) -> Engine:
    """Return the engine for `settings.source`.

    Raises:
        UserError: the engine's library is not installed, or the device asked for is not there.
        ValueError: the source is no phase retrieval.
    """
    match settings.source:
        case GroundTruthSource.PTYCHI:
            from acquisition.retrieval.ptychi_engine import PtychiEngine  # noqa: PLC0415

            return PtychiEngine(settings)
        case GroundTruthSource.TIKE:
            from acquisition.retrieval.tike_engine import TikeEngine  # noqa: PLC0415

            return TikeEngine(settings)
        case _:
            raise ValueError(f"{settings.source} is no phase-retrieval engine")
