"""The process of `orientation_trial`: short phase retrievals of one part of a scan, one after the other.

It reads what to do from standard input and ends as soon as that is closed, so also when its parent is killed.
"""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.retrieval.engine import FAILURES, Engine, Measurement
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.trial_messages import (
    PredictedMessage,
    TrialAnswer,
    TrialFailedMessage,
    TrialMessage,
    TrialPart,
    read_part,
    read_trial,
)
from ptychoflow.streaming.child_process import begin_child, requests_of_parent
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory


def main() -> None:
    """Do trials until standard input is closed. Arguments: the settings as JSON, the folder of the arrays."""
    answers = begin_child()
    keep_freed_memory()
    logging.getLogger("ptychoflow.acquisition").setLevel(logging.WARNING)  # a dozen retrievals need no line each
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
    # The parent sets a time to all of it; one that reads damaged files has less processor time for itself.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    settings, folder = RetrievalSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])
    trials = requests_of_parent()
    part = read_part(folder)
    while True:
        message = msgspec.json.decode(trials.get(), type=TrialMessage)
        answer = _do(part, folder, settings.model_copy(update={"epochs": message.epochs}))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _do(part: TrialPart, folder: Path, settings: RetrievalSettings) -> TrialAnswer:
    try:
        error = prediction_error(part, *read_trial(folder), make_engine(settings))
    except UserError as refusal:
        return TrialFailedMessage(str(refusal))
    except FAILURES as failure:
        return TrialFailedMessage(f"{type(failure).__name__}: {failure}")
    return PredictedMessage(error if np.isfinite(error) else None)


def prediction_error(
    part: TrialPart, positions_px: npt.NDArray[np.float64], probe: npt.NDArray[np.complex64], engine: Engine
) -> float:
    """Return the squared error of the amplitudes predicted for the frames left out, over their squares."""
    learned = ~part.left_out
    found = engine.reconstruct(Measurement(part.frames[learned], positions_px[learned], probe, part.mask))
    measured = np.sqrt(part.frames[part.left_out])
    height, width = part.mask.shape
    patches = cut_patches(found.object_image, positions_px[part.left_out], (height, width))
    predicted = np.sqrt(far_field_intensity(found.probe, patches))
    return float(np.sum((predicted - measured)[:, ~part.mask] ** 2) / np.sum(measured[:, ~part.mask] ** 2))


if __name__ == "__main__":
    main()
