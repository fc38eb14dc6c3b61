"""How frames lie to positions: what the shadows in the frames say, and the settings that put it right.

Where shadows do not tell, the errors of a short phase retrieval may (`retrieval/orientation_trial.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ptychoflow.acquisition.probe_estimate import Fit, Turn
from ptychoflow.acquisition.source_settings import PreprocessSettings, ProbeUse

BETTER = 1.3
"""Another orientation is recommended if its score is so many times that of the present one."""
CLEAR_ERROR = 0.8
"""Phase retrieval tells if the smallest error is at most so many times the next one."""
NAMES = {
    Turn.NONE: "as they are",
    Turn.MIRRORED: "mirrored",
    Turn.EXCHANGED: "transposed",
    Turn.EXCHANGED_MIRRORED: "transposed, mirrored",
}
PREFIX = "--set source.preprocess."
HOW_TO_ESTIMATE = f"--set source.probe={ProbeUse.IGNORE} estimates one"


@dataclass(frozen=True)
class Orientation:
    """The fits under every turn, and what they mean for the settings that the frames were read with."""

    fits: dict[Turn, Fit]
    settings: PreprocessSettings
    errors: dict[Turn, float] = field(default_factory=dict)
    """Of a short phase retrieval, of the turns that it was asked about."""
    probe_diameter: float | None = None
    """Of the source's own probe over the field of view, with the sign of its defocus; None if it tells none."""

    @property
    def best(self) -> Turn:
        """The turn under which the shadows agree best."""
        return max(self.fits, key=lambda turn: self.fits[turn].score)

    @property
    def recommended(self) -> Turn | None:
        """The turn that the frames speak for; None if they do not tell."""
        if self.errors:
            first, *others = sorted(self.errors, key=lambda turn: self.errors[turn])
            apart = not others or self.errors[first] <= CLEAR_ERROR * self.errors[others[0]]
            return first if apart else None
        fit = self.fits[self.best]
        if not fit.clear:
            return None
        if self.best is not Turn.NONE and fit.score < BETTER * self.fits[Turn.NONE].score:
            return None
        return self.best

    @property
    def near_each_other(self) -> list[Turn]:
        """The turns that the shadows do not tell apart."""
        best = self.fits[self.best]
        return [turn for turn in Turn if not best.clear or BETTER * self.fits[turn].score >= best.score]

    @property
    def turned_by_180(self) -> bool | None:
        """Whether frames and positions, put right as recommended, lie by 180° to each other; None if nothing tells.

        Shadows alone do not. A probe that is out of focus does: its defocus has one sign, and they show it too.
        """
        turn = self.recommended
        if turn is None or self.probe_diameter is None or not self.fits[turn].clear:
            return None
        return self.fits[turn].diameter * self.probe_diameter < 0

    def __rich__(self) -> Group:
        """Return the scores of the eight orientations as a table, and what they mean."""
        table = Table("frames", "settings", "score", "probe", title="Agreement of the shadows of neighbouring frames")
        if self.errors:
            table.add_column("error")
        for turn, fit in self.fits.items():
            for half_turn in (False, True):
                options = frame_options(self.settings, turn, half_turn=half_turn)
                table.add_row(
                    NAMES[turn] + (", turned by 180°" if half_turn else ""),
                    options.replace(PREFIX, "") or "as they are",
                    f"{fit.score:.3f}" + ("" if fit.clear else " (not clear)"),
                    f"{abs(fit.diameter):.0%}",
                    f"{self.errors[turn]:.4f}" if turn in self.errors else "",
                )
        return Group(table, *(Text(line) for line in self._words()))

    def _words(self) -> list[str]:
        turn = self.recommended
        said = (
            ["Error: of frames predicted by a short phase retrieval of a small part of the scan."]
            if self.errors
            else []
        )
        told = self._half_turn_in_words()
        if turn is None:
            return [
                *said,
                "The frames do not tell their orientation clearly: is the probe in focus, or the beam off centre?",
                told,
            ]
        if turn is Turn.NONE:
            return [*said, "Frames and positions fit together as they are.", told]
        frames, positions = self._options(turn)
        return [*said, f"Recommended: {frames}", f"or, the same: {positions}", told]

    def _options(self, turn: Turn) -> tuple[str, str]:
        """Return the options that put frames right, or else positions: by 180° more if the probe tells that."""
        half_turn = bool(self.turned_by_180)
        return (
            frame_options(self.settings, turn, half_turn=half_turn),
            position_options(self.settings, turn, half_turn=half_turn),
        )

    def _half_turn_in_words(self) -> str:
        match self.turned_by_180:
            case None:
                return (
                    "Frames turned by 180° (both axes mirrored) agree just as well, and the phase comes out inverted. "
                    "Matter has a lower phase than void: if the image shows it brighter, mirror both axes."
                )
            case False:
                return "Both axes mirrored would not fit: the probe is out of focus to the side that the frames show."
            case True if self.recommended is not Turn.NONE:
                return (
                    "Turned by 180° from there, the probe would be out of focus to the other side than frames show; "
                    f"if it is stored with the other sign: {HOW_TO_ESTIMATE}."
                )
            case True:
                return f"{self._other_defocus()}."

    def _other_defocus(self) -> str:
        both = frame_options(self.settings, self.recommended or Turn.NONE, half_turn=True)
        return (
            "The probe is out of focus to the other side than the frames show. If both axes are mirrored: "
            f"{both}; if it is stored with the other sign: {HOW_TO_ESTIMATE}"
        )

    def note(self) -> str | None:
        """Return what to change, if the frames say so clearly; how to find out, if they say nothing."""
        turn = self.recommended
        if turn is Turn.NONE:
            return self._other_defocus() if self.turned_by_180 else None
        if turn is None:
            return (
                "The shadows in the frames do not tell whether frames and positions fit together; ptychoflow inspect "
                "--orientation lets a short phase retrieval decide"
            )
        as_is, turned = self.fits[Turn.NONE].score, self.fits[turn].score
        frames, positions = self._options(turn)
        return (
            f"Frames and positions do not fit together as they are (score {as_is:.2f}, otherwise {turned:.2f}): "
            f"{frames}, or {positions}; see ptychoflow inspect --orientation"
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


def position_options(settings: PreprocessSettings, turn: Turn, *, half_turn: bool = False) -> str:
    """Return the options that turn positions so that they fit the frames, by 180° more if that is asked for."""
    exchanged, sign_x = turn.value
    signs = [settings.position_sign_y, settings.position_sign_x]
    if exchanged:
        signs.reverse()
    sign_y, sign_x = signs[0], signs[1] * sign_x
    if half_turn:
        sign_y, sign_x = -sign_y, -sign_x
    options = []
    if exchanged:
        options.append(f"{PREFIX}swap_positions={str(not settings.swap_positions).lower()}")
    if sign_y != settings.position_sign_y:
        options.append(f"{PREFIX}position_sign_y={sign_y}")
    if sign_x != settings.position_sign_x:
        options.append(f"{PREFIX}position_sign_x={sign_x}")
    return " ".join(options)
