"""In every process of a recorded run: which files came to the disk, under which names, and what was said, in order.

Python imports this module by itself where its folder is on the path. It appends a line of JSON for each call to the
file that the variable `RECORDED` names: once the disk has a file or a name, and before a message is sent.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from pathlib import Path

CODEC = "ptychoflow.streaming.codec"
FACTS = ("consumer", "sequences", "hold", "version", "perspective")


def note(what, **facts):
    line = json.dumps({"ns": time.monotonic_ns(), "what": what, **facts}, default=str)
    os.write(FILE, line.encode() + b"\n")


def recording_sync(sync):
    def recorded(file):
        path = Path(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").readlink()
        sync(file)
        note("sync", path=path)

    return recorded


def recording_rename(rename):
    def recorded(source, target, **options):
        begun, places = time.monotonic_ns(), (Path(source).resolve(), Path(target).resolve())
        rename(source, target, **options)
        note("rename", path=places[0], to=places[1], begun_ns=begun)

    return recorded


class CodecFinder(importlib.abc.MetaPathFinder):
    """Has the codec note every message that it encodes."""

    def find_spec(self, name, path, target=None):
        if name != CODEC:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def load_recording(module):
            load(module)
            encode = module.Codec.encode

            def recorded(codec, body, *rest, **options):
                said = getattr(body, "event", body)
                facts = {name: getattr(said, name) for name in FACTS if hasattr(said, name)}
                note("said", kind=type(said).__name__, **facts)
                return encode(codec, body, *rest, **options)

            module.Codec.encode = recorded

        spec.loader.exec_module = load_recording
        return spec


if "RECORDED" in os.environ:
    FILE = os.open(Path(os.environ["RECORDED"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.fsync, os.fdatasync = recording_sync(os.fsync), recording_sync(os.fdatasync)
    os.replace, os.rename = recording_rename(os.replace), recording_rename(os.rename)
    sys.meta_path.insert(0, CodecFinder())
