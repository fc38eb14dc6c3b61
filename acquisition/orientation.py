"""How frames lie to positions: what the shadows in the frames say, and the settings that put it right."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ptychoflow.acquisition.probe_estimate import Fit, Turn
from ptychoflow.acquisition.source_settings import PreprocessSettings

BETTER = 1.3
"""Another orientation is recommended if its score is so many times that of the present one."""
NAMES = {
    Turn.NONE: "as they are",
    Turn.MIRRORED: "mirrored",
    Turn.EXCHANGED: "transposed",
    Turn.EXCHANGED_MIRRORED: "transposed, mirrored",
}
PREFIX = "--set source.preprocess."


@dataclass(frozen=True)
class Orientation:
    """The fits under every turn, and what they mean for the settings that the frames were read with."""

    fits: dict[Turn, Fit]
    settings: PreprocessSettings

    @property
    def best(self) -> Turn:
        """The turn under which the shadows agree best."""
        return max(self.fits, key=lambda turn: self.fits[turn].score)

    @property
    def recommended(self) -> Turn | None:
        """The turn that the frames speak for; None if they do not tell."""
        fit = self.fits[self.best]
        if not fit.clear:
            return None
        if self.best is not Turn.NONE and fit.score < BETTER * self.fits[Turn.NONE].score:
            return None
        return self.best

    def __rich__(self) -> Group:
        """Return the scores of the eight orientations as a table, and what they mean."""
        table = Table("frames", "settings", "score", "probe", title="Agreement of the shadows of neighbouring frames")
        for turn, fit in self.fits.items():
            for half_turn in (False, True):
                options = frame_options(self.settings, turn, half_turn=half_turn)
                table.add_row(
                    NAMES[turn] + (", turned by 180°" if half_turn else ""),
                    options.replace(PREFIX, "") or "as they are",
                    f"{fit.score:.3f}" + ("" if fit.clear else " (not clear)"),
                    f"{abs(fit.diameter):.0%}",
                )
        return Group(table, *(Text(line) for line in self._words()))

    def _words(self) -> list[str]:
        turn = self.recommended
        told = (
            "Frames turned by 180° (both axes mirrored) agree just as well: the image comes out turned by 180°, the "
            "probe defocused the other way. Only a known feature of the specimen tells which is right."
        )
        if turn is None:
            return [
                "The frames do not tell their orientation clearly: is the probe in focus, or the beam off centre?",
                told,
            ]
        if turn is Turn.NONE:
            return ["Frames and positions fit together as they are.", told]
        frames, positions = frame_options(self.settings, turn), position_options(self.settings, turn)
        return [f"Recommended: {frames}", f"or, the same: {positions}", told]

    def note(self) -> str | None:
        """Return what to change, if the frames say so clearly."""
        turn = self.recommended
        if turn is None or turn is Turn.NONE:
            return None
        as_is, turned = self.fits[Turn.NONE].score, self.fits[turn].score
        return (
            f"Frames and positions do not fit together as they are (score {as_is:.2f}, otherwise {turned:.2f}): "
            f"{frame_options(self.settings, turn)}, or {position_options(self.settings, turn)}; "
            "see ptychoflow inspect --orientation"
        )


def frame_options(settings: PreprocessSettings, turn: Turn, *, half_turn: bool = False) -> str:
    """Return the options that turn frames so that they fit the positions, by 180° more if that is asked for."""
    exchanged, sign_x = turn.value
    flips = [settings.flip_y, settings.flip_x]
    if exchanged:
        flips.reverse()
    if sign_x < 0:
        # Undoing "exchange, then mirror x" is "exchange, then mirror y".
        axis = 0 if exchanged else 1
        flips[axis] = not flips[axis]
    if half_turn:
        flips = [not flip for flip in flips]
    new = {"transpose": settings.transpose != exchanged, "flip_y": flips[0], "flip_x": flips[1]}
    old = {"transpose": settings.transpose, "flip_y": settings.flip_y, "flip_x": settings.flip_x}
    return " ".join(f"{PREFIX}{name}={str(value).lower()}" for name, value in new.items() if value != old[name])


def position_options(settings: PreprocessSettings, turn: Turn) -> str:
    """Return the options that turn positions so that they fit the frames."""
    exchanged, sign_x = turn.value
    signs = [settings.position_sign_y, settings.position_sign_x]
    if exchanged:
        signs.reverse()
    sign_y, sign_x = signs[0], signs[1] * sign_x
    options = []
    if exchanged:
        options.append(f"{PREFIX}swap_positions={str(not settings.swap_positions).lower()}")
    if sign_y != settings.position_sign_y:
        options.append(f"{PREFIX}position_sign_y={sign_y}")
    if sign_x != settings.position_sign_x:
        options.append(f"{PREFIX}position_sign_x={sign_x}")
    return " ".join(options)
