"""Configuration of the edge."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.precision import Precision


class Overload(StrEnum):
    """What to do while frames come faster than they can be imaged. Every frame is imaged in the end."""

    SPOOL = "spool"
    """Image them in order and fall behind: `queue_max` wait here, the acquisition keeps the rest on its disk."""
    THIN = "thin"
    """Image every `image_every`-th now and put the rest off, on the edge's disk, until there is time."""


class InferenceSettings(Settings):
    """How the edge runs a network, whatever comes."""

    device: Device = Device.AUTO
    """Where the network runs."""
    gpu: NonNegativeInt = 0
    """Which of the GPUs that are visible to the edge it uses; it does not touch the others."""
    precision: Precision = Precision.AUTO
    """Arithmetic of the network's layers; its output is float32 either way."""
    threads: PositiveInt = 1
    """Threads for one inference on CPU; the trainer may share the host."""
    batch_max: PositiveInt = 64
    """Frames that the network is given together at most."""
    queue_max: PositiveInt = 2048
    """Frames waiting in memory at most; beyond, nothing is received and the publisher spools."""
    weights_kept: PositiveInt = 4
    """Versions of the weights that are kept, the one in use included, to roll back to."""
    report_period_s: PositiveFloat = 1.0
    """Counts, rates and latencies are reported this often."""
    wait_for_trainer_s: PositiveFloat = 300.0
    """When the stream has ended, a trainer that is away with its final weights is waited for as long as this. After
    half of it they are looked for in the run folder's `weights/`, where trainer and edge see the same one; so they are
    by an edge without any weights that can hold no more frames."""


class EdgeSettings(InferenceSettings):
    """The `[edge]` section of a scan.

    Batches are smaller than `batch_max` when fewer frames wait, or when `latency_max_ms` asks for it.
    """

    backend: BackendName = BackendName.AUTO
    """What runs the network."""
    stitching_threads_max: PositiveInt = 4
    """Threads that stitch one image together at most, and draw it: as many as there are processors that the network
    leaves free, `threads` of them on CPU. The image does not depend on how many they are."""
    latency_max_ms: PositiveFloat = 500.0
    """From a frame's arrival to its image, while imaging keeps up: batches are kept to half of that."""
    overload: Overload = Overload.SPOOL
    """What to do while imaging does not keep up: when it would take longer than `latency_max_ms` to image all frames
    that wait."""
    image_every: int = Field(default=4, ge=2)
    """With overload `thin`: frames whose index is a multiple of this are imaged in turn."""
    refuse_below_db: PositiveFloat = 6.0
    """Weights are refused whose phase PSNR, on frames whose reference is known, is this much below that of the weights
    in use."""
    patch_crop_px: PositiveInt | None = None
    """Stitch only the central part of each patch, this many pixels high and wide; all of it by default."""
    min_coverage: PositiveInt = 2
    """Quality is measured where at least this many frames cover the image."""
    keep: PositiveInt = 2
    """Perspectives whose frames are kept to be imaged again with newer weights, the current one included."""
    keep_bytes: PositiveInt = 4 << 30
    """Memory for these frames at most. Beyond, the oldest perspectives are let go of first; of one that is larger by
    itself no frames are kept: they are imaged once, and newer weights do not change its image."""
    keep_unscored: PositiveInt = 32
    """Perspectives kept in memory, beyond those, until their reference comes; older ones are left without scores."""
    refresh_share: float = Field(default=0.3, gt=0, le=1)
    """Largest share of the time spent on imaging again until the final weights come; the trainer may share the host."""
    residual_share: float = Field(default=0.03, ge=0, le=1)
    """Largest share of the time spent on the score without ground truth: patch times probe, propagated, against the
    frame's counts. Of the frames imaged as many are scored as fit into it; 0 leaves the score out."""
    image_period_s: PositiveFloat = 0.5
    """A stitched image is reported at most this often: what has changed of it."""
    whole_image_period_s: PositiveFloat = 10.0
    """All of a stitched image is reported this often while it changes, for viewers that joined late."""
    score_period_s: PositiveFloat = 5.0
    """An image that keeps changing is scored at most this often."""
