"""The exit statuses of the command; 0 only if the work was done."""

FAILED_STATUS = 1
"""Anything but a mistake and an interruption."""
USER_ERROR_STATUS = 2
"""A user's mistake, told in one line."""
INTERRUPTED_STATUS = 130
"""Ended in order after Ctrl-C, as shells count it."""
