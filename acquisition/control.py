"""What people ask of the acquisition in mid-run."""

from __future__ import annotations

from streaming.commands import CommandReceiver, Pause, Resume


class Control:
    """Keeps what was asked last. Use it from one thread only.

    Args:
        commands: closed by its owner.
    """

    def __init__(self, commands: CommandReceiver) -> None:
        self.paused = False
        self._commands = commands

    def poll(self) -> None:
        """Take in the commands that have come. Does not block."""
        while (command := self._commands.poll()) is not None:
            if isinstance(command, Pause | Resume):
                self.paused = isinstance(command, Pause)
