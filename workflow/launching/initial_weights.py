"""Finds the weights with which a run starts: a file, or the newest ones that an earlier run published."""

from __future__ import annotations

import logging
from pathlib import Path

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import AnyConfig

log = logging.getLogger(__name__)


def with_found_weights(config: AnyConfig) -> AnyConfig:
    """Return a copy in which `trainer.init_weights` is a file.

    Raises:
        UserError: there is no such file, or the earlier run published nothing.
    """
    path = config.trainer.init_weights
    if path is None:
        return config
    file = find_weights(path)
    log.info("training starts from %s", file)
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"init_weights": file})})


def find_weights(path: Path) -> Path:
    """Return `path` itself if it is a file, or the newest weights of the run whose folder it is.

    Raises:
        UserError: there is no such file, or the earlier run published nothing.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"initial weights {path}: no such file or run folder")
    folder = RunFolder(path)
    published = folder.weights_by_version()
    if not published:
        raise UserError(f"initial weights {path}: this run published none (there are none in {folder.weights})")
    return published[max(published)]
