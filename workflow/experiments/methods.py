"""What experiments compare."""

from __future__ import annotations

from enum import StrEnum

from ptychoflow.trainer.settings import StrategyName


class Method(StrEnum):
    """Strategies on the stream, and training on everything at once."""

    FROM_SCRATCH = "from_scratch"
    """A new network, trained on all that has been seen. The upper bound."""
    INCREMENTAL = "incremental"
    ER = "er"
    DER = "der"
    DERPP = "derpp"
    XDER = "xder"

    @property
    def strategy(self) -> StrategyName:
        """What each step learns from."""
        return StrategyName.INCREMENTAL if self is Method.FROM_SCRATCH else StrategyName(self.value)
