"""What `ptychoflow inspect` says of files of every format and with every known fault: the table's own cases.

`case_table.py` prints it as a table, each file inspected in a process of its own.
"""

import pytest
from case_files import CASES
from case_table import said
from file_case import Case
from more_case_files import MORE

from ptychoflow.workflow.cli import run_command_line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inspect_says_what_is_expected(case: Case, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    paths = case.write(tmp_path)
    capfd.readouterr()
    status = run_command_line(["inspect", *map(str, paths), *case.options])
    printed = capfd.readouterr()
    assert said(status, printed.out, printed.err).fault(case) is None, printed


def test_no_two_cases_have_one_name():
    names = [case.name for case in CASES + MORE]
    assert len(set(names)) == len(names)
    assert all(case.words for case in CASES + MORE)
