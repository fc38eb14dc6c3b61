"""Whether a rehearsal buffer can be as the settings have it, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from ptychoflow.buffer.options import Options, total_capacity
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.settings import LearningSettings, StrategyName


def check_buffer(
    settings: LearningSettings, *, ranks: int, classes: int = 1, item_bytes: Callable[[], int] | None = None
) -> None:
    """Look at the sizes of a buffer; loads PyTorch only where UCX is asked for.

    Args:
        settings: of the training.
        ranks: that share the buffer.
        classes: that share it.
        item_bytes: says what an item takes, and is asked where the buffer is given in bytes; None where nobody knows.

    Raises:
        UserError: the buffer has less room than items for every rank and class or than representatives, or would never
            be used; or UCXX, which is to carry its items, is not installed.
    """
    buffer = settings.buffer
    if settings.strategy is StrategyName.INCREMENTAL:
        return
    try:
        if buffer.transport == "ucx":
            from ptychoflow.buffer.transport.opening import check_transport  # noqa: PLC0415

            check_transport(buffer.transport)
        capacity = buffer.capacity
        if buffer.capacity_bytes > 0:
            if item_bytes is None:
                return
            capacity = total_capacity(
                None,
                buffer.capacity_bytes,
                item_bytes=item_bytes(),
                candidates=buffer.candidates,
                world_size=ranks,
            )
        Options(
            capacity=capacity,
            representatives=settings.strategy.draws * buffer.representatives,
            candidates=buffer.candidates,
            classes=classes,
            seed=0,
            timeout_s=buffer.timeout_s,
            world_size=ranks,
        )
    except ValueError as error:
        raise UserError(f"{settings.SECTION}.buffer: {error}") from error
    require_reachable(settings, capacity=capacity)


def require_reachable(settings: LearningSettings, *, capacity: int) -> None:
    """Raise `UserError` if representatives are to be used once there are more items than a buffer can hold."""
    begins_at = settings.buffer.rehearse_from_items
    if begins_at > capacity:
        raise UserError(
            f"{settings.SECTION}.buffer: rehearse_from_items {begins_at} is larger than the "
            f"capacity of {capacity} items, so nothing would ever be rehearsed; lower it, or raise the capacity"
        )
