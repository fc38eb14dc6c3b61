"""What a log tells of a part that gave up."""

import io
import logging
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from ptychoflow.acquisition.readers.draft import draft_map, survey_table
from ptychoflow.acquisition.readers.survey import Candidate, Role, Survey
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.printable import PrintableFormatter, printable
from ptychoflow.workflow.logs import last_words, print_error

TORCHRUN = """
W0101 torch/distributed/elastic Sending process 7 closing signal SIGTERM
Root Cause (first observed failure):
  exitcode  : -9 (pid: 17445)
  traceback : Signal 9 (SIGKILL) received by PID 17445
============================================================
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ("ptychoflow: the disk is full\n" + TORCHRUN, "the disk is full"),
        (TORCHRUN, "traceback : Signal 9 (SIGKILL) received by PID 17445"),
        ("x" * 100_000 + "\nend\n", "end"),
    ],
)
def test_the_last_words_are_the_reason(tmp_path: Path, text: str, words: str) -> None:
    log = tmp_path / "part.log"
    log.write_text(text)
    assert last_words(log) == words


def test_a_log_that_was_never_written_has_none(tmp_path: Path) -> None:
    assert last_words(tmp_path / "absent.log") == ""


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("first\nsecond   third")
    assert capsys.readouterr().err == "ptychoflow: first second third\n"


HOSTILE = "scan\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e\udcff\n2026-01-01 00:00:00,000 ERROR forged"


def test_what_acts_on_a_terminal_is_written_out() -> None:
    assert printable("straße µm\ttab") == r"straße µm\ttab"
    assert printable("\x1b[2J\x9b\udcff\u202e") == r"\x1b[2J\x9b\udcff\u202e"
    assert UserError(HOSTILE).args[0].isprintable()
    assert printable(HOSTILE).isprintable()


def test_no_entry_of_a_log_is_forged_or_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("cannot read %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line.split()[2] for line in lines if line.startswith("2")] == ["WARNING", "ERROR"]
    assert any("forged" in line for line in lines)
    print_error(HOSTILE)
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_names_in_a_file_of_unknown_layout_do_not_act_on_a_terminal() -> None:
    name = HOSTILE.replace("\udcff", "")
    found = Survey([Candidate(Role.FRAMES, f"/{name}", (3, 8, 8), "uint16", name, name)])
    found.candidates += [Candidate(Role.PIXEL, f"/{name}/{number}", (), "f8", "m", "1") for number in range(3)]
    console = Console(file=io.StringIO(), width=400)
    console.print(survey_table(found))
    draft = draft_map(found, name=name)
    for text in (console.file.getvalue(), draft):
        assert all(line.isprintable() for line in text.splitlines())
    assert tomllib.loads(draft)["frames"]["path"] == f"/{name}"
