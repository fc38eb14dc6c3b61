"""What experiments compare."""

from __future__ import annotations

from enum import StrEnum

from ptychoflow.trainer.settings import StrategyName


class Method(StrEnum):
    """Strategies on the stream, training on everything at once, and what only remembers."""

    FROM_SCRATCH = "from_scratch"
    """A new network, trained on all that has been seen. The upper bound."""
    INCREMENTAL = "incremental"
    INCREMENTAL_MORE = "incremental_more"
    """As many samples per step as the rehearsing methods have, in as many steps: those of the present alone."""
    ER = "er"
    ER_MORE = "er_more"
    """Experience replay with twice as many representatives: as many samples per step as DER++ with two draws."""
    DER = "der"
    DERPP = "derpp"
    DERPP_TWO_DRAWS = "derpp_two_draws"
    XDER = "xder"
    MEMORISER = "memoriser"
    """No network: the ground truth of the frame that looks most alike, of all that were seen."""
    MEMORISER_BUFFER = "memoriser_buffer"
    """Likewise, of as many as the rehearsal buffers of all ranks hold, sampled uniformly from all that were seen."""

    @property
    def strategy(self) -> StrategyName:
        """What each step learns from, where there are steps."""
        if self is Method.ER_MORE:
            return StrategyName.ER
        return StrategyName.INCREMENTAL if self in _ON_THE_STREAM_ALONE else StrategyName(self.value)

    @property
    def on_scans_only(self) -> bool:
        """Whether it is compared on scans alone."""
        return self.remembers_only or self in (Method.INCREMENTAL_MORE, Method.ER_MORE)

    @property
    def remembers_only(self) -> bool:
        """Whether it has no network."""
        return self in (Method.MEMORISER, Method.MEMORISER_BUFFER)


_ON_THE_STREAM_ALONE = (Method.FROM_SCRATCH, Method.INCREMENTAL_MORE, Method.MEMORISER, Method.MEMORISER_BUFFER)
