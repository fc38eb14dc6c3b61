"""Hands the perspectives of a run that has ended over to other programs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ptychoflow.acquisition.ptychography.keeping import Keeper
from ptychoflow.acquisition.ptychography.scan_again import scan_again, take_again
from ptychoflow.dashboard.archive import ImageArchive
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway
from ptychoflow.dashboard.outputs.ptychodus import BEST_FIRST, PtychodusOutput
from ptychoflow.dashboard.outputs.settings import PtychodusOutputSettings
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import RunContext
from ptychoflow.workflow.configuration.config import Config, load_config
from ptychoflow.workflow.launching.run_folder import claimed

log = logging.getLogger(__name__)

AGAIN = "hand_over"
"""In the run's spool: frames of the perspective that is being handed over."""


def hand_over(path: Path, into: Path) -> Iterator[int]:
    """Hand over every perspective of a run of which there is an image; yield each one's number when it is written.

    Args:
        path: the run's folder.
        into: gets a folder with the run's name.

    Raises:
        UserError: there is no such run, it is still going on, its scan cannot be read any more, or the disk takes
            nothing.
    """
    folder = RunFolder(path.resolve())
    if not folder.config.is_file():
        raise UserError(
            f"{path} is not the folder of a run: it holds no {folder.config.name}; name a folder runs/<name>"
        )
    config = load_config(file=folder.config)
    if not isinstance(config, Config):
        raise UserError(f"run {path} was on labelled images: there is no scan in it to hand over")
    with claimed(folder, patience_s=0.0), writing(f"{into} and {folder.spool}"):
        yield from _hand_over(config, RunContext(folder.path.name, folder.path, config.run.seed), into)


def _hand_over(config: Config, run: RunContext, into: Path) -> Iterator[int]:
    archive, work = ImageArchive(run.folder), run.folder.spool / AGAIN
    output = PtychodusOutput(PtychodusOutputSettings(folder=into), run=run)
    try:
        for perspective in scan_again(config.source, run.folder.arrivals):
            images = archive.of(perspective.index)
            best = next((images[kind] for kind in BEST_FIRST if kind in images), None)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            acquired = take_again(perspective, work)
            if best is None:
                log.warning("perspective %d is left out: the run has no image of it", perspective.index)
                continue
            Keeper(run.folder.kept_perspectives, warn=log.warning).keep(acquired)
            try:
                output.send(News(best, time_s=0.0, scan=None))
            except ConsumerAway as error:
                raise UserError(str(error)) from error
            yield perspective.index
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(run.folder.kept_perspectives, ignore_errors=True)
        with suppress(OSError):  # there is more in it, for a run that can be resumed
            run.folder.spool.rmdir()
