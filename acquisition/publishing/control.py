"""What people ask of the acquisition in mid-run."""

from __future__ import annotations

from ptychoflow.streaming.commands import CommandReceiver, Pause, Resume, SetRegime
from ptychoflow.streaming.events import Regime


class Control:
    """Keeps what was asked last. Use it from one thread only.

    Args:
        commands: closed by its owner.
    """

    def __init__(self, commands: CommandReceiver) -> None:
        self.paused = False
        self.regime: Regime | None = None
        """The regime that people chose; None lets the scores decide."""
        self._commands = commands

    def poll(self) -> None:
        """Take in the commands that have come. Does not block."""
        while (command := self._commands.poll()) is not None:
            match command:
                case Pause() | Resume():
                    self.paused = isinstance(command, Pause)
                case SetRegime(regime):
                    self.regime = regime
