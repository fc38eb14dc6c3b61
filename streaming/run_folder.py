"""The names in a run's folder `runs/<name>/`, for all who write or read there; nothing is made or opened here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `runs/<name>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration as resolved, ports included."""
        return self.path / "config.toml"

    @property
    def earlier_config(self) -> Path:
        """The configuration of before, while a resume may come to nothing."""
        return self.path / "config.before.toml"

    @property
    def environment(self) -> Path:
        """Versions, host, git revision, seed."""
        return self.path / "environment.json"

    @property
    def lock(self) -> Path:
        """Held by whoever runs in this folder."""
        return self.path / ".lock"

    @property
    def telemetry(self) -> Path:
        """Every event of the run, one JSON object a line."""
        return self.path / "telemetry.jsonl"

    @property
    def summary(self) -> Path:
        """The run's result, for programs."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The run's result, for people."""
        return self.path / "report.html"

    @property
    def recording(self) -> Path:
        """The frames, if asked for."""
        return self.path / "recording.h5"

    @property
    def arrivals(self) -> Path:
        """Folder of everything that the sources of a live scan sent: its recording."""
        return self.path / "arrivals"

    @property
    def probe(self) -> Path:
        """Probe of the first perspective, complex64 (mode, y, x)."""
        return self.path / "probe.npy"

    @property
    def spool(self) -> Path:
        """What the acquisition needs only until the run has ended well."""
        return self.path / "spool"

    @property
    def kept_perspectives(self) -> Path:
        """Frames that are kept in the spool until they are handed over."""
        return self.spool / "kept"

    @property
    def checkpoints(self) -> Path:
        """What the trainer can go on from."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """Folder of the published weights."""
        return self.path / "weights"

    def weights_file(self, version: int) -> Path:
        """Return the file of one published version."""
        return self.weights / f"v{version:06d}.safetensors"

    def weights_by_version(self) -> dict[int, Path]:
        """Return the published weights that are there, oldest first."""
        return _numbered(self.weights, r"v(\d+)\.safetensors")

    @property
    def final_weights(self) -> Path:
        """The final weights as the edge fetched them."""
        return self.path / "edge_final_weights.msgpack"

    @property
    def images(self) -> Path:
        """Folder of the stitched images."""
        return self.path / "images"

    def image_file(self, perspective: int) -> Path:
        """Return the file with the arrays of a perspective's images."""
        return self.images / f"perspective_{perspective:04d}.h5"

    def image_files(self) -> dict[int, Path]:
        """Return those files that are there, by perspective."""
        return _numbered(self.images, r"perspective_(\d+)\.h5")

    def picture(self, perspective: int, kind: str, channel: str) -> Path:
        """Return the picture of one channel of one kind of image."""
        return self.images / f"perspective_{perspective:04d}_{kind}_{channel}.png"

    def pictured(self) -> list[int]:
        """Return the perspectives of which there are pictures, in order."""
        names = (re.match(r"perspective_(\d+)_", path.name) for path in self.images.glob("*.png"))
        return sorted({int(name[1]) for name in names if name})

    @property
    def tasks(self) -> Path:
        """Folder of what the edge has classified."""
        return self.path / "tasks"

    def task_file(self, task: int) -> Path:
        """Return the record of one task."""
        return self.tasks / f"task_{task:04d}.json"

    def task_files(self) -> dict[int, Path]:
        """Return the records that are there, by task."""
        return _numbered(self.tasks, r"task_(\d+)\.json")

    def log(self, name: str) -> Path:
        """Return the log of one part."""
        return self.path / "logs" / f"{name}.log"


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the files of a folder whose whole name fits the pattern, by the number in it; empty without a folder."""
    named = ((re.fullmatch(pattern, path.name), path) for path in folder.glob("*"))
    return dict(sorted((int(found[1]), path) for found, path in named if found))
