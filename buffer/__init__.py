"""A rehearsal buffer distributed over the ranks of a training run.

The way of the data, from the bottom up; a module imports from those above it in this list alone:

    schema             what an item is made of: named fields, each of one shape and dtype
    index              which rows hold live items; their ids (never reused), classes and scores
    policies/          decide which candidates become live items and which items they replace
    memory, cuda       rows of items, one contiguous array per field, allocated once; their copies to and from a GPU
    outputs            the two sets of rows that draws are written into and `take` hands out, in turn
    sampling           how many items of a draw come from each rank, and which; uniformly or by score
    local_store        this rank's part of the buffer: rows, index, policy
    candidate_writer   `offer` copies c candidates of the minibatch straight into free rows of the store
    transport/         asks other ranks for their part and serves theirs
    draws              makes a draw of it, with the other ranks
    background         the one thread that owns all this
    checkpoint         a rank's state, restored as it was or dealt anew to any number of ranks
    rehearsal          what the training loop calls
    loader             the same behind a DataLoader, for training loops that belong to somebody else

Where UCX lets a rank attach to another's outputs (ranks of one host, outputs not on a GPU), it writes the items it is
asked for straight into them and says so. Otherwise they are sent. `stats().served_in_place` tells how many went which
way. A set of outputs that a lost rank may still write to is never used again.

A row of the store is free, or being written by one `offer`, or live. Live rows are read and replaced by the background
thread alone, so that no item is ever read while it is written and no lock is held during a copy.

What it costs, per rank, with p ranks, draws of r, c candidates, capacity C in all and items of s bytes:

    memory              (C / p + 2 c) s for the store, 2 r s for the outputs, about r s for replies on their way
                        to other hosts
    messages a step     at most min(r, p - 1) requests and as many replies; p - 1 more of 40 bytes while the store grows
    bytes a step        r s (p - 1) / p received and as many sent; r s / p from the own store
    copies a step       c s on the training thread, or by the GPU's copy engine; in the background r s, each item once,
                        by the rank that has it, where ranks reach each other's memory; else r s (1 + (p - 1) / p)
    connections         p - 1 sockets, which cost nothing while they are idle

For the thesis's sizes, r 24, c 14, and items of 160 KiB (128 x 128 pixels, compact dtypes), with 30 % of 150,000 frames
stored (C = 45,000, 7.4 GB in all):

    ranks   store per rank   requests a step   received a step
      128           62 MB   at most 24, mean 22      3.9 MB
     1024           12 MB   at most 24, mean 24      3.9 MB

Neither requests nor bytes grow with the number of ranks: a draw never asks more ranks than it has items. At 5 GB/s,
which is cautious for UCX on one host, that is 0.8 ms of background work a step, and 5 ms over a network of 1 GB/s.
Only the announcements of growing stores grow with p: until all stores are full, every rank sends 40 bytes to every
other per step, 41 kB a step at 1024 ranks. Draws by score need 48 such bytes a step for as long as they last, and ask
again for what came twice; that is rare unless few items carry most of the weight.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychoflow.buffer.index import Candidate, Index
    from ptychoflow.buffer.loader import RehearsalBatch, RehearsalLoader
    from ptychoflow.buffer.outputs import Representatives
    from ptychoflow.buffer.policies import APPEND, REJECT, Policy
    from ptychoflow.buffer.rehearsal import RehearsalBuffer
    from ptychoflow.buffer.schema import Field, Schema
    from ptychoflow.buffer.statistics import BufferStats, StepTiming

__all__ = [
    "APPEND",
    "REJECT",
    "BufferStats",
    "Candidate",
    "Field",
    "Index",
    "Policy",
    "RehearsalBatch",
    "RehearsalBuffer",
    "RehearsalLoader",
    "Representatives",
    "Schema",
    "StepTiming",
]

_PLACES = {
    "loader": ("RehearsalBatch", "RehearsalLoader"),
    "index": ("Candidate", "Index"),
    "policies": ("APPEND", "REJECT", "Policy"),
    "outputs": ("Representatives",),
    "rehearsal": ("RehearsalBuffer",),
    "schema": ("Field", "Schema"),
    "statistics": ("BufferStats", "StepTiming"),
}


def __getattr__(name: str) -> Any:
    """Load PyTorch only for what needs it: a configuration that names a policy does not."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"ptychoflow.buffer.{module}"), name)
    raise AttributeError(f"module 'ptychoflow.buffer' has no attribute {name!r}")
