"""What the edge knows of one perspective: its frames, its stitched images, its reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.frame_residuals import FrameResiduals
from ptychoflow.inference_edge.section import Section
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, PlacedPatches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.inference_edge.stitching.row_owners import ONE_OWNER, RowOwners
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.illumination import Illumination

Residuals = npt.NDArray[np.float64]


class Rendering:
    """One stitching of a perspective: all frames, and beside it the held-out frames alone.

    Args:
        owners: threads that stitch.
    """

    def __init__(self, owners: RowOwners) -> None:
        self.whole = Mosaic(owners)
        self.held_out = Mosaic(owners)
        self.versions: set[int] = set()
        """Model versions that contributed."""
        self.residuals = FrameResiduals()

    def stitch(self, block: DiffractionBlock, patches: PlacedPatches, version: int, residuals: Residuals | None) -> int:
        """Stitch the patches of frames that `version` predicted; return how many were out of reach."""
        held_out = block.held_out
        out_of_reach = self.whole.stitch(patches)
        if residuals is not None:
            height, width = patches.phase.shape[1:]
            self.residuals.add(residuals, block.position_px, patch_shape_px=(height, width))
        if held_out.any():
            self.held_out.stitch(patches.select(held_out))
        self.versions.add(version)
        return out_of_reach

    def finish(self) -> None:
        """Keep only the images; nothing can be added any more."""
        self.whole.finish()
        self.held_out.finish()

    def state(self) -> tuple[int, frozenset[int]]:
        """Return what differs whenever the image has changed."""
        return self.whole.frames, frozenset(self.versions)


class _RefreshPass:
    """Frames still to be imaged again, and the image that grows from them."""

    def __init__(self, blocks: list[DiffractionBlock], owners: RowOwners) -> None:
        self.waiting = deque(blocks)
        self.rendering = Rendering(owners)


class Perspective(Section):
    """One perspective while its images can still change.

    The refreshed image shows every frame as it was imaged last. It is replaced as a whole when all kept frames have
    been imaged again. A pass during which yet newer weights came goes on with them and is followed by another,
    so that the image gets newer however often weights come.

    Args:
        index: of the perspective.
        angle_deg: of the specimen.
        owners: threads that stitch.
    """

    def __init__(self, index: int, angle_deg: float, owners: RowOwners = ONE_OWNER) -> None:
        super().__init__(index)
        self._owners = owners
        self.angle_deg = angle_deg
        self.illumination: Illumination | None = None
        """None where nothing is known of it."""
        self.reference: ReferenceImage | None = None
        self.references = 0
        """How many references have come; the newest counts."""
        self.reference_due = True
        """A reference may still come."""
        self.released = False
        """The frames are no longer kept, and once the perspective is complete nothing can be added."""
        self.kept_bytes = 0
        """Memory that the kept frames take."""
        self.image_sent = False
        """Phase retrieval has been sent what was made of the frames on arrival."""
        self._keeps = True
        self._known: set[int] = set()
        self._blocks: list[DiffractionBlock] = []
        self._placed: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = []
        first_pass = Rendering(owners)
        # one and the same until something has been imaged again
        self._renderings = {MosaicKind.FIRST_PASS: first_pass, MosaicKind.REFRESHED: first_pass}
        self._pass: _RefreshPass | None = None

    @property
    def received(self) -> int:
        """Frames received."""
        return len(self._known)

    @property
    def kept(self) -> bool:
        """Whether frames are held to be imaged again."""
        return bool(self._blocks)

    @property
    def blocks(self) -> Sequence[DiffractionBlock]:
        """The kept frames, in the order in which they were imaged."""
        return self._blocks

    def rendering(self, kind: MosaicKind) -> Rendering:
        """Return the first-pass or the refreshed stitching."""
        return self._renderings[kind]

    def set_reference(self, reference: ReferenceImage) -> None:
        """Compare with this reference from now on."""
        self.reference = reference
        self.references += 1

    def some_frames(self, frames_max: int) -> DiffractionBlock:
        """Return kept frames that were taken one after the other; some must be kept."""
        return self._blocks[-1].head(frames_max)

    def placements(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return positions (n, 2) of all stitched frames, and which of them are held out, (n,)."""
        positions, held_out = zip(*self._placed, strict=True)
        return np.concatenate(positions), np.concatenate(held_out)

    def late(self, index: npt.NDArray[np.int32]) -> int:
        """Return how many frames (n,) are new though the images are finished."""
        return len(set(index.tolist()) - self._known) if self.released and self.complete else 0

    def mark_received(self, index: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return which frames (n,) have not been received before, bool (n,), and remember them."""
        new = np.zeros(len(index), dtype=bool)
        for i, one in enumerate(index.tolist()):
            new[i] = one not in self._known
            self._known.add(one)
        return new

    def stitch(
        self, block: DiffractionBlock, patches: PlacedPatches, version: int, residuals: Residuals | None = None
    ) -> int:
        """Stitch frames imaged for the first time, and keep them unless told not to; return how many were out of reach.

        `residuals`: (n,), NaN of frames that were not scored.
        """
        renderings = set(self._renderings.values()) | ({self._pass.rendering} if self._pass else set())
        out_of_reach = [one.stitch(block, patches, version, residuals) for one in renderings]
        if self._keeps and len(block):
            self._blocks.append(block)
            self.kept_bytes += block.nbytes
        self._placed.append((block.position_px, block.held_out))
        return max(out_of_reach)

    def outdated(self, version: int) -> bool:
        """Whether kept frames were last imaged by other weights than `version`."""
        versions = self._renderings[MosaicKind.REFRESHED].versions
        return self.kept and (self._pass is not None or not versions <= {version})

    def next_to_refresh(self, frames_max: int) -> DiffractionBlock:
        """Return the next kept frames to be imaged again, about `frames_max` at most, and begin a pass if none runs."""
        if self._pass is None:
            self._pass = _RefreshPass(self._blocks, self._owners)
        waiting = self._pass.waiting
        taken = [waiting.popleft()]
        while waiting and sum(map(len, taken)) + len(waiting[0]) <= frames_max:
            taken.append(waiting.popleft())
        return DiffractionBlock.join(taken)

    def stitch_refreshed(
        self, block: DiffractionBlock, patches: PlacedPatches, version: int, residuals: Residuals | None = None
    ) -> None:
        """Stitch frames imaged again; the refreshed image is replaced after the last of a pass."""
        if self._pass is None:
            raise RuntimeError("frames were imaged again outside of a refresh pass")
        self._pass.rendering.stitch(block, patches, version, residuals)
        if not self._pass.waiting:
            self._renderings[MosaicKind.REFRESHED] = self._pass.rendering
            self._pass = None

    def abandon_pass(self) -> None:
        """Drop a running pass; the next one begins anew."""
        self._pass = None

    def keep_no_frames(self) -> None:
        """Let go of the frames, and of those to come; the refreshed image shows them as they were imaged last."""
        self._keeps = False
        self._blocks, self.kept_bytes = [], 0
        self._pass = None

    def release_frames(self) -> None:
        """Let go of the frames; the images stay as they are, and no longer change once the perspective is complete."""
        self.released = True
        self.keep_no_frames()
        if self.complete:
            for rendering in set(self._renderings.values()):
                rendering.finish()
