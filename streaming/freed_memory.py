"""Memory that is freed stays with the process, for what is allocated next."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

KEPT_BYTES = 1 << 28
LARGEST_BYTES = 1 << 25
"""Of one piece; the C library takes no more."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""As `malloc.h` of glibc numbers them."""


def keep_freed_memory() -> None:
    """Keep up to 256 MiB of what this process frees, where the C library can do that.

    Otherwise the pages of every batch of frames go back to the system and come again, emptied: that takes longer than
    to copy frames, or to decode them. So do those of the tensors that a step of training or of phase retrieval makes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        log.info("freed memory is not kept: the C library of this system has no mallopt")
        return
    if not (mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, LARGEST_BYTES)):
        log.info("freed memory is not kept: the C library refused")
