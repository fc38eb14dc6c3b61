"""What the parts say to each other on the data sockets (frames, samples, weights).

Every message is one struct below plus named arrays. Array axes are named in the docstrings; `n` counts
the frames of a batch, `y` and `x` are rows and columns. Frames are joined by id `(perspective, index)`,
never by arrival order.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

SCHEMA_VERSION = 4
MAX_RANKS = 1024
MAX_SEQUENCE = 2**53
"""Messages are numbered from 0; counting on from here stays within what can be sent."""


class FrameRole(IntEnum):
    """What a frame may be used for; chosen at the publisher by a seeded hash of its id or by its position."""

    TRAIN = 0
    VALIDATION = 1
    HELD_OUT = 2
    EXCLUDED = 3
    """Inside the gap around a held-out region: its patch overlaps held-out area, so nothing may learn from it."""


class GroundTruthSource(StrEnum):
    """Where a perspective's ground truth comes from."""

    PTYCHI = "ptychi"
    RECORDED = "recorded"
    SIMULATED = "simulated"
    TIKE = "tike"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all data messages."""


class ScanStart(Message, tag="scan_start", frozen=True):
    """Sent once per connection, before anything else."""

    run: str
    perspectives: int | None
    """How many will come; None when the source cannot tell."""
    frame_shape_px: tuple[int, int]
    target_shape_px: tuple[int, int]
    """Shape of the central ground-truth patch that samples carry."""
    object_pixel_size_m: tuple[float, float]
    energy_eV: float
    detector_distance_m: float
    detector_pixel_size_m: tuple[float, float]
    wants_images: bool = False
    """The edge is to send a `FirstPassImage` of every perspective."""


class ClassificationStart(Message, tag="classification_start", frozen=True):
    """Announces labelled images instead of a scan. A perspective of the stream is then a task, a frame an image.

    Classes are numbered from 0 over all tasks. Which task an image belongs to groups scores and tells frame ids apart;
    no network is ever given it.
    """

    run: str
    tasks: int
    classes: int
    """Of all tasks together."""
    channels: int
    stored_px: int
    """Side of the images, which are squares."""


StreamStart = ScanStart | ClassificationStart
"""What a stream begins with; it says which pipeline the rest is for."""


class Frames(Message, tag="frames", frozen=True):
    """Frames of one perspective in acquisition order, for the edge.

    Of a task of images, the arrays are `index`, `role`, `image` uint8 (n, channels, y, x) and `label` int64 (n,), which
    is for scores alone; `angle_deg` is 0.

    Arrays: `index` int32 (n,), `role` uint8 (n,) of FrameRole, `position_px` float64 (n, 2) as (y, x) in object
    pixels, `diffraction` (n, y, x) counts with zero frequency at pixel (y // 2, x // 2).
    """

    perspective: int
    angle_deg: float
    acquired_at_s: float
    """`time.time()` when the last frame of the batch was acquired."""


class Probe(Message, tag="probe", frozen=True):
    """What lights the object in one perspective, before its frames come.

    For the edge's score without ground truth, and for what the trainer learns without it.

    Arrays: `probe` complex64 (mode, y, x), of the frames' shape and of any brightness; `mask` bool (y, x), true where a
    pixel is not to be looked at, left out where there is none.
    """

    perspective: int
    angle_deg: float


class UnlabelledFrames(Message, tag="unlabelled_frames", frozen=True):
    """Frames whose ground truth is still to come, for rank 0, which may learn from them and their probe meanwhile.

    Arrays: `position_px` float64 (n, 2) as (y, x) in object pixels, `diffraction` (n, y, x) counts. All are of the role
    TRAIN; most come again later, as `Samples`.
    """

    perspective: int


class Samples(Message, tag="samples", frozen=True):
    """Frames with their ground truth, for one trainer rank.

    Arrays: `index` int32 (n,), `role` uint8 (n,) (TRAIN or VALIDATION only), `diffraction` (n, y, x) counts,
    `amplitude` and `phase` float16 (n, target y, target x); phase in radians within ±π.
    Of a task of images: `index`, `role`, `image` uint8 (n, channels, y, x), `label` int64 (n,).
    """

    perspective: int


class Reference(Message, tag="reference", frozen=True):
    """The ground-truth image of one perspective, in the common gauge, for the edge.

    Arrays: `amplitude`, `phase` float32 (y, x). Pixel (0, 0) lies at `origin_px` in the coordinates of
    `position_px`: pixel (i, j) shows the object at position `origin_px + (i, j)`.
    """

    perspective: int
    angle_deg: float
    origin_px: tuple[float, float]
    source: GroundTruthSource
    seconds: float
    """Wall time that computing it took; 0 where it was recorded or simulated."""


class NoReference(Message, tag="no_reference", frozen=True):
    """A perspective gets no reference image; an edge need not keep its own images for one."""

    perspective: int


class PerspectiveEnd(Message, tag="perspective_end", frozen=True):
    """All frames (for the edge) or all samples (for a rank) of a perspective have been sent."""

    perspective: int
    angle_deg: float
    frames: int
    """Frames acquired in this perspective."""


class ScanEnd(Message, tag="scan_end", frozen=True):
    """Nothing more will come."""

    frames: int
    """Frames acquired in the whole scan."""


class Complete(Message, tag="complete", frozen=True):
    """The stream has ended, and every acknowledgement of this consumer has come: it may leave. It has no number."""


class LeftOut(Message, tag="left_out", frozen=True):
    """In place of a message that waited on disk and can no longer be read: go on without it."""


class Weights(Message, tag="weights", frozen=True):
    """A version of the model. Arrays: `safetensors` uint8 (bytes,), the file as written by the trainer.

    The tensors `constant.amplitude` and `constant.phase` in the file hold the training mean, the prediction
    that a model has to beat.
    """

    version: int
    sha256: str
    """Hex digest of the array `safetensors`."""
    step: int
    final: bool
    """The trainer will publish nothing newer."""
    stopped: bool = False
    """It was stopped before it was done with the scan: it may be started again, and go on."""


DataMessage = (
    ScanStart
    | ClassificationStart
    | Probe
    | Frames
    | UnlabelledFrames
    | Samples
    | Reference
    | NoReference
    | PerspectiveEnd
    | ScanEnd
    | Complete
    | LeftOut
    | Weights
)


class Hello(Message, tag="hello", frozen=True):
    """A consumer announces itself; the publisher sends again what this consumer has not acknowledged."""

    consumer: str
    """`edge`, or `rank-R`."""
    session: str
    """New for every start of the consumer."""
    world_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_RANKS)]
    """Ranks of the trainer; 0 from an edge."""
    next_sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    """The number that this session expects next; a publisher that does not know the session counts from here."""
    call: Annotated[int, msgspec.Meta(ge=0)]
    """How often this session has announced itself before; what is sent in answer says so."""


class Acknowledge(Message, tag="acknowledge", frozen=True):
    """Batches that the consumer has finished with: imaged (edge), or covered by a complete checkpoint (ranks)."""

    consumer: str
    session: str
    sequences: list[int]
    hold: bool = False
    """Finished with in memory only: a consumer that is started again must be sent them again."""


class FirstPassScore(Message, tag="first_pass_score", frozen=True):
    """How good the image of a whole perspective is that the edge made on arrival; sent again after a reconnection.

    Of the phase, against the perspective's reference; what the regimes look at.
    """

    perspective: int
    psnr_db: float
    ssim: float
    constant_psnr_db: float
    """Of always predicting the mean training patch."""
    residual: float | None = None
    """The largest that `FirstPassResidual` said of the perspective; None if it said nothing."""


class FirstPassResidual(Message, tag="first_pass_residual", frozen=True):
    """How badly the newest frames of a perspective are explained by what the edge made of them on arrival.

    It needs no ground truth; the regimes look at it too.
    """

    perspective: int
    frames: int
    """Of the perspective that are imaged."""
    residual: float
    """Median over the newest frames: the share of a frame's energy that patch times probe, propagated, leaves over."""


class FirstPassImage(Message, tag="first_pass_image", frozen=True):
    """What the edge made of a whole perspective on arrival, for phase retrieval to start from; sent once.

    Arrays: `amplitude`, `phase` float16 (y, x), NaN where nothing covers the pixel.
    """

    perspective: int
    origin_px: tuple[int, int]
    """Position of pixel (0, 0)."""


ControlMessage = Hello | Acknowledge | FirstPassScore | FirstPassResidual | FirstPassImage


class Taken(Message, tag="taken", frozen=True):
    """The hub has the event whose session and number the header repeats, in its file as far as the disk takes it."""


class WeightsRequest(Message, tag="weights_request", frozen=True):
    """An edge asks for weights newer than `newer_than`; answered as soon as there are any."""

    edge: str
    newer_than: int
