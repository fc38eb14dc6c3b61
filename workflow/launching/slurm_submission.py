"""A batch script on its way to SLURM: written, and handed to `sbatch`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError, writing

SBATCH_TIMEOUT_S = 60.0


def write_script(script: str, path: Path) -> Path:
    """Write a batch script; return its path. One that is there and the same stays.

    Raises:
        UserError: another one is there, perhaps changed by hand; or it cannot be written.
    """
    with writing(path):
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != script:
            raise UserError(f"{path} is there already, and another: delete it, or choose a file with --output FILE")
        write_durably(path, script)
    return path


def submit_script(path: Path) -> str:
    """Hand a script to SLURM; return what it says. Blocks for its controller.

    Raises:
        UserError: there is no SLURM here, or it refuses the job.
    """
    try:
        answer = subprocess.run(  # noqa: S603 our own command line
            ["sbatch", str(path)],  # noqa: S607 of the cluster's own place
            capture_output=True,
            text=True,
            timeout=SBATCH_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(f"{path} is written, and there is no `sbatch` here: submit it on the cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} is written, and sbatch does not answer: submit it later") from None
    if answer.returncode:
        raise UserError(f"{path} is written, and SLURM refuses it: {answer.stderr.strip()}")
    return answer.stdout.strip()
