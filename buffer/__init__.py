"""A rehearsal buffer distributed over the ranks of a training run.

The way of the data, one file per station:

    schema          what an item is made of: named fields, each of one shape and dtype
    intake          `offer` copies c candidates of the minibatch straight into free rows of the store
    memory          rows of items, one contiguous array per field, allocated once
    index           which rows hold live items; their ids (never reused), classes and scores
    policies/       decide which candidates become live items and which items they replace
    sampling        plans a draw: how many items from each rank, then which
    transport/      asks other ranks for their part and serves theirs
    outputs         the two sets of rows that draws are written into and `take` hands out, in turn
    background      the one thread that owns all this; `rehearsal` is what the training loop calls

A row of the store is free, or being written by one `offer`, or live. Live rows are read and replaced by the background
thread alone, so that no item is ever read while it is written and no lock is held during a copy.
"""

from __future__ import annotations

from buffer.outputs import Representatives
from buffer.policies import APPEND, REJECT, Candidate, Policy
from buffer.rehearsal import RehearsalBuffer
from buffer.schema import Field, Schema
from buffer.statistics import BufferStats, StepTiming

__all__ = [
    "APPEND",
    "REJECT",
    "BufferStats",
    "Candidate",
    "Field",
    "Policy",
    "RehearsalBuffer",
    "Representatives",
    "Schema",
    "StepTiming",
]
