"""Errors for people."""

from ptychoflow.streaming.errors import UserError


def test_an_error_is_one_line_whatever_it_quotes():
    assert str(UserError("scan.h5: /entry\nof two\r lines: no frames")) == "scan.h5: /entry of two lines: no frames"
