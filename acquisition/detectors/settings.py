"""Configuration of a live scan: which sources, how frames and positions are joined, when a series is over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSettings
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySettings
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSettings
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings
from ptychoflow.acquisition.detectors.watched_folder.settings import WatchedFolderSettings
from ptychoflow.acquisition.source_settings import GeometrySettings, PreprocessSettings
from ptychoflow.streaming.settings import Settings

Corner = tuple[float, float]

FrameSource = (
    BlueskyDocumentsSettings
    | DectrisV1Settings
    | DectrisV2Settings
    | Hdf5SwmrSettings
    | NtndarraySettings
    | WatchedFolderSettings
)
PositionSource = (
    BlueskyDocumentsSettings | Hdf5SwmrSettings | PandaSettings | PositionSenderSettings | PositionTableSettings
)
FrameSourceSettings = Annotated[FrameSource, Field(discriminator="kind")]
PositionSourceSettings = Annotated[PositionSource, Field(discriminator="kind")]
LiveSourceSettings = FrameSource | PositionSource
"""Of any live source."""


class JoinSettings(Settings):
    """Which frame belongs to which position: frame and samples with the same trigger number, counted from 0.

    Trigger of a frame: its number − `first_frame`. Trigger of a sample: (its number − `first_sample`) divided by
    `samples_per_frame`, without the rest; the position of a frame is the mean of its samples. Nothing of this can be
    seen in the data, so it must be said.
    """

    first_frame: NonNegativeInt
    """The number that the detector gives the first frame of a series."""
    first_sample: NonNegativeInt
    """The number of the first sample of position that belongs to that frame; 1 if a stale one comes before it."""
    samples_per_frame: PositiveInt
    """Samples of position for every frame."""
    wait_s: PositiveFloat = 2.0
    """How long a frame waits for its position, and a series that has ended for what is still on its way."""
    begin_within_s: PositiveFloat = 10.0
    """Positions that do not say to which series they belong go with the one whose first frame came nearest to the first
    of them in time, if it was not further away than this. Those of a PandA must have come while its frames did,
    if those before them have. Those that name a series are its own whenever they come; only if a series of that name
    was there before, they must have begun this near to the first frame of the next one."""
    most_frames: PositiveInt = 10_000_000
    """A trigger number beyond this is a mistake."""


class LiveSettings(Settings):
    """A scan as a detector sends it."""

    kind: Literal["live"] = "live"
    frames: FrameSourceSettings
    """The detector."""
    positions: PositionSourceSettings | None = None
    """What says where the probe was; None where the detector sends that with its frames."""
    join: JoinSettings
    """Which frame belongs to which position."""
    geometry: GeometrySettings = GeometrySettings()
    """Energy, distance and pixel sizes that the detector does not say, or says wrong."""
    preprocess: PreprocessSettings = PreprocessSettings()
    """Corrections of frames and positions."""
    probe: Path | None = None
    """Probe to start from: an earlier run's folder, a scan file with a probe, or a `.npy` file (mode, y, x). A run's is
    of frames after the corrections that it shares with this one (`preprocess`), the others of frames as sent."""
    extent_m: tuple[Corner, Corner] | None = None
    """Lowest and highest (y, x) that positions will reach; a held-out region needs it where no table says it."""
    first_frames: Annotated[int, Field(ge=2, le=4096)] = 64
    """Bad pixels, probe and orientation are found from so many frames of the first series."""
    look_again: bool = False
    """Find bad pixels and the probe anew in every series, not in the first one alone."""
    idle_s: PositiveFloat = 60.0
    """A series of which nothing has come for so long has stalled: it ends."""
    perspectives: PositiveInt | None = None
    """Series to take; None goes on until the run is stopped."""
    end_after_idle_s: PositiveFloat | None = None
    """The scan is over when nothing has come for so long; None waits for ever."""
    decoders: PositiveInt | None = None
    """Threads that decode frames; None takes as many as there are cores."""
    queue_bytes: PositiveInt = 1 << 30
    """What the receiver holds in memory while the disk is slow; more is lost, and said. Files wait in their folder."""
    keep_arrivals: bool = True
    """Keep what came, message by message, also of a run that has ended well; without, it is deleted then, and only what
    is recorded stays. Until then a resumed run needs it. An acquisition that was started by itself deletes it when the
    scan has ended and all receivers have finished with it."""
    skipped_series: NonNegativeInt = 0
    """Series at the beginning that are left out, such as those of an alignment."""

    @property
    def sources(self) -> list[LiveSourceSettings]:
        """The detector, and what says where the probe was if that comes from elsewhere."""
        return [self.frames] if self.positions is None else [self.frames, self.positions]

    @model_validator(mode="after")
    def _one_source_for_each(self) -> Self:
        frames, positions = self.frames, self.positions
        of_both = BlueskyDocumentsSettings | Hdf5SwmrSettings
        if isinstance(frames, of_both) and frames.frames is None:
            raise ValueError("give frames.frames, the frames that are taken")
        if isinstance(positions, of_both) and (positions.frames is not None or not positions.gives_positions):
            raise ValueError("say in [positions] where the positions are, and no frames")
        may_bring = frames if isinstance(frames, of_both | NtndarraySettings) else None
        brought = may_bring is not None and may_bring.gives_positions
        if positions is not None and brought:
            raise ValueError("positions come with the frames already: take them there, or from [positions]")
        if positions is None and not brought:
            elsewhere = "name their source with --positions, or in [source.positions]"
            if may_bring is None:
                raise ValueError(f"this detector sends no positions: {elsewhere}")
            keys = "field_y and field_x" if isinstance(frames, BlueskyDocumentsSettings) else "positions"
            raise ValueError(f"no positions are taken: say in [source.frames] where they are ({keys}), or {elsewhere}")
        return self
