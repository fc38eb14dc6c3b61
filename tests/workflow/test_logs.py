"""What a log tells of a part that gave up."""

from pathlib import Path

import pytest

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
