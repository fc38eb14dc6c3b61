"""Whether a run has ended well, so that nothing is left to do in its folder."""

from __future__ import annotations

import logging

import msgspec

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)


class _Summary(msgspec.Struct, frozen=True):
    """What of a `summary.json` matters here."""

    ended_well: bool = False


def refuse_ended_run(folder: RunFolder) -> None:
    """Raise `UserError` if the run in a folder has ended well; a summary that cannot be read says nothing."""
    if _has_ended_well(folder):
        raise UserError(f"run {folder.path} has ended well: there is nothing to resume; its report is {folder.report}")


def _has_ended_well(folder: RunFolder) -> bool:
    if not folder.summary.is_file():
        return False
    try:
        return msgspec.json.decode(folder.summary.read_bytes(), type=_Summary).ended_well
    except UNREADABLE as error:
        log.warning("%s cannot be read (%s) and will be written anew", folder.summary, error)
        return False
