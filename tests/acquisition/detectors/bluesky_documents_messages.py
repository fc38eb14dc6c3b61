"""Messages with documents for `mutated_messages`."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.bluesky_documents.decoder import BlueskyDocumentsDecoder
from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSettings

SHAPE_PX = (8, 9)
FRAMES = np.arange(8 * 72, dtype=np.uint16).reshape(8, *SHAPE_PX)
Document = tuple[str, Mapping[str, Any]]


def settings(files: Path, /, **changes: object) -> BlueskyDocumentsSettings:
    """Return settings for `documents`."""
    values = {"host": "127.0.0.1", "frames": "det", "folder": files, "field_y": "y", "field_x": "x"}
    return BlueskyDocumentsSettings.model_validate(values | {"visible_within_s": 0.01} | changes)


def documents(uri: str, *, run: str = "run", points: int = 8, exit_status: str = "success") -> list[Document]:
    """Return those of a step scan, with what is of no interest as well."""
    number = {"dtype": "number", "shape": [], "dtype_numpy": "<f8", "source": "soft://"}
    frames = {"dtype": "array", "shape": [1, *SHAPE_PX], "dtype_numpy": "<u2", "external": "STREAM:", "source": uri}
    keys = {"det": frames, "det-sum": number | {"external": "STREAM:"}, "y": number | {"units": "mm"}}
    keys["x"] = number | {"units": "um"}
    resources = [
        {"uid": f"{run}-{key}", "data_key": key, "mimetype": "application/x-hdf5", "uri": uri, "run_start": run}
        | {"parameters": {"dataset": dataset, "chunk_shape": [1, *SHAPE_PX]}}
        for key, dataset in (("det", "/entry/data"), ("det-sum", "/entry/sum"))
    ]
    found: list[Document] = [
        ("start", {"uid": run, "time": 1.0, "num_points": points, "angle": 12.5, "energy": 8800, "plan_name": "scan"}),
        ("descriptor", {"uid": f"{run}-d", "run_start": run, "name": "primary", "data_keys": keys}),
        ("descriptor", {"uid": f"{run}-b", "run_start": run, "name": "baseline", "data_keys": keys}),
        ("event", {"descriptor": f"{run}-b", "seq_num": 1, "data": {"y": 7.0, "x": 7.0}}),
        *(("stream_resource", resource) for resource in resources),
    ]
    for index in range(points):
        for key in ("det", "det-sum"):
            rows = {"indices": {"start": index, "stop": index + 1}, "seq_nums": {"start": index + 1, "stop": index + 2}}
            datum = {"uid": f"{key}/{index}", "stream_resource": f"{run}-{key}", "descriptor": f"{run}-d"}
            found.append(("stream_datum", datum | rows))
        event = {"descriptor": f"{run}-d", "seq_num": index + 1, "data": {"y": -0.5 * index, "x": index}, "filled": {}}
        found.append(("event", event))
    found.append(("stop", {"uid": "s", "run_start": run, "exit_status": exit_status, "reason": ""}))
    return found


def message(document: Document, *, prefix: bytes = b"", as_json: bool = False) -> Message:
    """Return what a publisher sends of a document."""
    name, values = document
    content = json.dumps(values).encode() if as_json else msgspec.msgpack.encode(values)
    return [b" ".join([prefix, name.encode(), content])]


@cache
def folder() -> Path:
    """Return a folder with one file of frames."""
    made = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    with h5py.File(made / "a.h5", "w") as file:
        file.create_dataset("entry/data", data=FRAMES, chunks=(1, *SHAPE_PX))
    return made


def messages() -> Sequence[Message]:
    """Return those of two runs, one in each way of writing them.

    What everything else hangs on comes several times, so that one of them is not damaged.
    """
    uri = f"file://localhost{folder()}/a.h5"
    found: list[Message] = []
    for run, as_json in (("first", False), ("second", True)):
        for document in documents(uri, run=run, points=5):
            times = 4 if document[0] in {"descriptor", "stream_resource"} else 1
            found += [message(document, as_json=as_json)] * times
    return found


STREAM = Stream(lambda: BlueskyDocumentsDecoder(settings(folder())), messages)
