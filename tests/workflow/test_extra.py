"""Without all of the extra `workflow`, every command ends in one line that names it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import pytest

from ptychoflow.__main__ import NEEDED


def test_all_that_the_extra_brings_is_looked_for() -> None:
    required = [line for line in metadata.requires("ptychoflow") or [] if re.search(r"extra == .workflow.", line)]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in required}
    brought = metadata.packages_distributions()
    looked_for = {distribution.lower().replace("_", "-") for name in NEEDED for distribution in brought[name]}
    assert len(names) > 20
    assert names == looked_for & names
    assert len(NEEDED) == len(names)


@pytest.mark.parametrize("missing", ["typer", "tomli_w", "uvicorn"])
@pytest.mark.parametrize("command", ["--help", "--version", "run --preset demo", "train", "report nowhere", "bench"])
def test_a_command_without_it_ends_in_one_line(missing: str, command: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from ptychoflow.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"needs the extra 'workflow' ({missing} not found); install it with: pip install" in line
