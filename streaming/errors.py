"""Errors that a user can act on: one line that says what happened, where, and what to do."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in input, configuration or environment; the CLI prints it as one line and exits with status 2."""
