"""The regimes: whether every perspective gets ground truth, or only a few to see that the network is good enough."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from ptychoflow.acquisition.settings import RegimeSettings
from ptychoflow.streaming.events import Regime, Unlabelled
from ptychoflow.streaming.messages import FirstPassResidual, FirstPassScore

log = logging.getLogger(__name__)


class RegimeControl:
    """Decides from the edge's first-pass scores, unless people have chosen a regime.

    Good first passes of `consecutive` perspectives in a row lead to *monitoring*, a single one that is not good enough
    leads back to *learning*. So do, before any ground truth, frames that are explained much worse than those of the
    last good perspectives were anywhere; while the newest are, nothing leads to *monitoring*.
    """

    def __init__(self, settings: RegimeSettings) -> None:
        self.regime = Regime.LEARNING
        self._settings = settings
        self._chosen: Regime | None = None
        self._scored: set[int] = set()
        self._good_in_a_row = 0
        self._last_wanted: int | None = None
        self._good_residuals: deque[float] = deque(maxlen=settings.consecutive)
        """Of the last good perspectives, the largest of each."""
        self._newest: FirstPassResidual | None = None

    def wants_ground_truth(self, perspective: int) -> bool:
        """Decide on the next perspective; ask once for each, in order."""
        if not self.would_want(perspective):
            return False
        self._last_wanted = perspective
        return True

    def would_want(self, perspective: int) -> bool:
        """Tell how it would be decided on the next perspective now."""
        rules, last = self._settings, self._last_wanted
        one_in = rules.one_in if self.regime is Regime.MONITORING else rules.learning_one_in
        return last is None or perspective - last >= one_in

    @property
    def spares_because(self) -> Unlabelled:
        """Why a perspective goes without ground truth now."""
        learning_spares = self.regime is Regime.LEARNING and self._settings.learning_one_in > 1
        return Unlabelled.SPARED if learning_spares else Unlabelled.MONITORING

    def reconsider(self, *, under_way: int, waiting: Sequence[int]) -> list[int]:
        """Decide again on perspectives whose phase retrieval has not begun; return those that do without it now."""
        self._last_wanted = under_way
        return [perspective for perspective in waiting if not self.wants_ground_truth(perspective)]

    def ground_truth_failed(self) -> None:
        """Let the next perspective have ground truth, whatever its turn: nothing was learned from the last one."""
        self._last_wanted = None

    def set_chosen(self, regime: Regime | None) -> str | None:
        """Follow what people chose, None to let the scores decide; return why the regime changes, if it does."""
        self._chosen = regime
        if regime is None or regime is self.regime:
            return None
        return self._change(regime, "chosen by a command")

    def judge(self, score: FirstPassScore | FirstPassResidual) -> str | None:
        """Judge by a score, each perspective's first one against ground truth; return why the regime changes, if so."""
        if isinstance(score, FirstPassResidual):
            return self._judge_residual(score)
        if score.perspective in self._scored:
            return None
        self._scored.add(score.perspective)
        shortfall = self._shortfall(score)
        self._good_in_a_row = 0 if shortfall else self._good_in_a_row + 1
        if not shortfall and score.residual is not None:
            self._good_residuals.append(score.residual)
        if not self._decides:
            return None
        if self.regime is Regime.MONITORING and shortfall:
            return self._change(Regime.LEARNING, f"perspective {score.perspective}: {shortfall}")
        enough = self._good_in_a_row >= self._settings.consecutive
        if self.regime is Regime.LEARNING and enough and not self._excess():
            reason = (
                f"{self._good_in_a_row} perspectives in a row were good enough, the last of them {score.perspective}"
            )
            return self._change(Regime.MONITORING, reason)
        return None

    @property
    def _decides(self) -> bool:
        """Whether scores change the regime."""
        return self._chosen is None and self._settings.automatic

    def _judge_residual(self, residual: FirstPassResidual) -> str | None:
        if self._newest is None or residual.perspective >= self._newest.perspective:
            self._newest = residual
        if self._decides and self.regime is Regime.MONITORING and (excess := self._excess()):
            return self._change(Regime.LEARNING, excess)
        return None

    def _excess(self) -> str:
        """Say how badly the newest frames are explained; empty if well enough, or if too little is known to tell."""
        newest, ratio, good = self._newest, self._settings.residual_ratio, self._good_residuals
        if newest is None or len(good) < self._settings.consecutive:
            return ""
        if not newest.residual > ratio * max(good):
            return ""
        return (
            f"perspective {newest.perspective}: after {newest.frames} frames the residual {newest.residual:.3g} is "
            f"more than {ratio:g} times the {max(good):.3g} of perspectives that were good enough"
        )

    def _shortfall(self, score: FirstPassScore) -> str:
        """Say what a score lacks; empty if it is good enough. A figure that is not a number never is."""
        limits = [
            ("phase PSNR", score.psnr_db, self._settings.psnr_db, " dB"),
            ("phase SSIM", score.ssim, self._settings.ssim, ""),
            ("phase PSNR", score.psnr_db, score.constant_psnr_db, " dB, the constant prediction's"),
        ]
        short = [
            f"{name} {value:.4g} is below {limit:.4g}{unit}"
            for name, value, limit, unit in limits
            if limit is not None and not value >= limit
        ]
        return "; ".join(short)

    def _change(self, regime: Regime, reason: str) -> str:
        self.regime = regime
        self._good_in_a_row = 0
        if regime is Regime.LEARNING:
            self._last_wanted = None  # what is new is learnt from the next perspective on
        log.info("regime %s: %s", regime.value, reason)
        return reason
