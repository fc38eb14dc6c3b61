"""How OpenMP's threads wait for each other."""

from __future__ import annotations

from collections.abc import Mapping

POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SPINS_BEFORE_SLEEP = "1000"
"""Some tens of microseconds. A step of the trainer is hundreds of short pieces of work for two threads: where one that
sleeps has to be woken for each, a step takes half as long again."""


def waiting_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which threads that wait soon sleep, unless `environment` says otherwise.

    By default they spin for milliseconds, which costs several times the work where parts outnumber processors. The
    variables are read when PyTorch is loaded, so they must be set before.
    """
    chosen = {POLICY: environment.get(POLICY, "PASSIVE")}
    if chosen[POLICY].upper() == "PASSIVE":
        chosen[SPINS] = environment.get(SPINS, SPINS_BEFORE_SLEEP)
    return chosen
