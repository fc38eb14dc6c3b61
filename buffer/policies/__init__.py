"""Which candidates are kept and what they replace: one policy a file."""

from __future__ import annotations

from ptychoflow.buffer.names import PolicyName
from ptychoflow.buffer.policies.balanced_reservoir import BalancedReservoirPolicy
from ptychoflow.buffer.policies.fifo import FifoPolicy
from ptychoflow.buffer.policies.herding import HerdingPolicy
from ptychoflow.buffer.policies.loss_aware import LossAwarePolicy
from ptychoflow.buffer.policies.policy import APPEND, REJECT, Policy
from ptychoflow.buffer.policies.random import RandomPolicy
from ptychoflow.buffer.policies.reservoir import ReservoirPolicy

__all__ = ["APPEND", "REJECT", "Policy", "make_policy"]

_POLICIES: dict[str, type[Policy]] = {
    "random": RandomPolicy,
    "reservoir": ReservoirPolicy,
    "balanced_reservoir": BalancedReservoirPolicy,
    "fifo": FifoPolicy,
    "loss_aware": LossAwarePolicy,
    "herding": HerdingPolicy,
}


def make_policy(policy: PolicyName | Policy) -> Policy:
    """The policy of that name, or the object given; ValueError for an unknown name."""
    if isinstance(policy, Policy):
        return policy
    if policy not in _POLICIES:
        raise ValueError(f"Policy {policy!r} is unknown; use one of {', '.join(_POLICIES)}, or a Policy object.")
    return _POLICIES[policy]()
