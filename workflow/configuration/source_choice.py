"""What kind of source the paths on a command line are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptychoflow.acquisition.readers.folders import holds_frames
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import option_table
from ptychoflow.workflow.configuration.layers import Table
from ptychoflow.workflow.configuration.pipeline_name import PipelineName


def source_options(scan: Sequence[Path], dataset_map: str | None, pipeline: PipelineName | None) -> Table:
    """Return the section [source] that files or folders on a command line stand for; empty without any.

    A folder is one of labelled images, unless frames lie in it.

    Raises:
        UserError: one of them is not there, is the folder of a run, or one with nothing that could be streamed.
    """
    if not scan:
        return option_table(source__dataset_map=dataset_map)
    _require_sources(scan)
    folder = len(scan) == 1 and scan[0].is_dir() and not holds_frames(scan[0])
    if folder and pipeline is None and not (scan[0] / "train").is_dir():
        raise UserError(
            f"{scan[0]}: this folder holds neither frames that can be read nor labelled images (train/CLASS/* and "
            "val/CLASS/*); if a scan lies in it, name its file"
        )
    if pipeline is PipelineName.CLASSIFICATION or (folder and pipeline is not PipelineName.PTYCHOGRAPHY):
        return option_table(source__kind="images", source__folder=str(scan[0]), source__dataset_map=dataset_map)
    paths = [str(path) for path in scan]
    return option_table(
        source__kind="replay", source__path=paths if len(paths) > 1 else paths[0], source__dataset_map=dataset_map
    )


def _require_sources(paths: Sequence[Path]) -> None:
    """Raise `UserError` for what is no source, before its kind is guessed and its settings are joined with others."""
    absent = [str(path) for path in paths if not path.expanduser().exists()]
    if absent:
        raise UserError(f"{', '.join(absent[:5])}: there is no such file or folder; check the path")
    for folder in map(RunFolder, paths):
        if folder.config.is_file() and folder.telemetry.is_file():
            raise UserError(
                f"{folder.path}: this is the folder of a run: name its {folder.recording.name}, if it was recorded, or "
                "use `ptychoflow view` or `ptychoflow resume`"
            )
