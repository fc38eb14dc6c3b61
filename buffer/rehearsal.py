"""The distributed rehearsal buffer as a training loop sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from ptychoflow.buffer.background import Background, DrawTiming
from ptychoflow.buffer.capacity import class_quotas
from ptychoflow.buffer.checkpoint import check_own, check_shards, restore_own, restore_shards, save_shard
from ptychoflow.buffer.cuda import numbered
from ptychoflow.buffer.generators import make_generators
from ptychoflow.buffer.intake import Intake, Offer, no_candidates
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.membership import membership
from ptychoflow.buffer.memory import byte_rows
from ptychoflow.buffer.names import PolicyName, TransportName
from ptychoflow.buffer.offer_checks import OfferCheck
from ptychoflow.buffer.options import Options, total_capacity
from ptychoflow.buffer.outputs import Outputs, Representatives
from ptychoflow.buffer.policies import Policy, make_policy
from ptychoflow.buffer.schema import Schema
from ptychoflow.buffer.statistics import BufferStats, StepClock, StepTiming
from ptychoflow.buffer.transport.opening import check_transport, open_transport

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from ptychoflow.buffer.ticket import Ticket


class RehearsalBuffer:
    """Stores samples of a stream on all ranks of a group and serves uniform draws of all that is stored.

    One step of training is `take`, then `offer`; insertion and the next draw run in the background meanwhile. The
    methods may be called from any thread, one call at a time takes effect.
    """

    def __init__(  # noqa: PLR0913  keyword-only settings, each with one meaning
        self,
        schema: Schema,
        *,
        representatives: int,
        candidates: int,
        capacity: int | None = None,
        capacity_bytes: int | None = None,
        classes: int = 1,
        policy: PolicyName | Policy = "random",
        transport: TransportName = "auto",
        group: ProcessGroup | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        timeout_s: float = 30.0,
    ) -> None:
        """Allocate the store, connect the ranks and start the background thread; collective over `group`.

        `representatives`: items per draw (the thesis's r). `candidates`: samples of each minibatch, chosen at random,
        that the policy decides on (c). `capacity`: items over all ranks of `group`; or `capacity_bytes`: bytes that all
        ranks' stores may occupy. `classes`: labels are 0 to classes - 1 and share the capacity equally. `policy`: by
        name, or an object of one's own. `transport`: "auto" takes UCX if it can be imported, else TCP; "local" keeps
        every rank to its own items. `group`: None is the default process group, or one process alone where there is
        none. `device`: where `take` puts the items. `timeout_s`: how long a rank may leave a request unanswered before
        the others go on without it.

        Raises ValueError for settings that cannot work, and TimeoutError if a rank does not appear.
        """
        member = membership(group)
        self._schema = schema
        self._member = member
        self._device = numbered(torch.device(device))
        self._policy = make_policy(policy)
        check_transport(transport)
        self._options = Options(
            capacity=total_capacity(
                capacity,
                capacity_bytes,
                item_bytes=schema.nbytes,
                candidates=candidates,
                world_size=member.world_size,
            ),
            representatives=representatives,
            candidates=candidates,
            classes=classes,
            seed=seed,
            timeout_s=timeout_s,
            world_size=member.world_size,
        )
        self._check = OfferCheck(schema, classes=classes, policy=self._policy)
        self._generators = make_generators(seed, rank=member.rank)
        self._store = LocalStore(
            schema,
            quotas=class_quotas(
                self._options.capacity, classes=classes, rank=member.rank, world_size=member.world_size
            ),
            spare_rows=self._options.spare_rows,
            policy=self._policy,
            rank=member.rank,
            pinned=self._device.type == "cuda",
        )
        self._intake = Intake(self._store.rows, self._store.free, self._device)
        self._transport = open_transport(
            transport, member, self._store, options=self._options, serve_rng=self._generators.serve
        )
        self._outputs = Outputs(schema, representatives, device=self._device, open_window=self._transport.open_window)
        self._clock = StepClock()
        self._background = Background(
            self._store,
            self._transport,
            self._outputs,
            representatives=representatives,
            generators=self._generators,
            clock=self._clock,
        )
        self._calls = threading.RLock()
        self._offers = 0
        self._offered_samples = 0
        self._pending: Ticket[DrawTiming] | None = None
        self._pending_offer_s = 0.0
        self._may_take = True
        self._closed = False

    @property
    def schema(self) -> Schema:
        """What an item is made of."""
        return self._schema

    @property
    def device(self) -> torch.device:
        """Where `take` puts the items."""
        return self._device

    @property
    def policy(self) -> Policy:
        """What decides which candidates are stored, and what it needs to be offered."""
        return self._policy

    def take(self) -> Representatives:
        """The items of the draw that the last `offer` began; zero items before any offer.

        Waits only if the background is behind. What is returned stays valid until the next `take`. Raises RuntimeError
        if nothing was offered since the last `take`.
        """
        with self._calls:
            self._check_open()
            if not self._may_take:
                raise RuntimeError("take() was called twice without an offer() between; offer(None) begins a draw.")
            self._may_take = False
            pending, self._pending = self._pending, None
            if pending is None:
                return self._outputs.swap()
            started = time.perf_counter()
            had_to_wait = not pending.finished
            timing = pending.result()
            self._clock.add_take(
                StepTiming(
                    waited_s=time.perf_counter() - started,
                    offered_s=self._pending_offer_s,
                    populate_s=timing.populate_s,
                    augment_s=timing.augment_s,
                ),
                had_to_wait=had_to_wait,
            )
            self._check_open()
            return self._outputs.swap()

    def offer(
        self,
        minibatch: Mapping[str, torch.Tensor] | None,
        *,
        labels: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> None:
        """Store candidates of a minibatch and begin the next draw, both in the background.

        `minibatch`: every field of the schema, (samples, *shape), in the schema's dtype, on any device; None begins a
        draw only. `labels`: integers (samples,); labels on a GPU cost a synchronisation. `scores`: floats (samples,),
        `features`: floats (samples, d), for policies that need them. The caller may reuse all tensors on return. Blocks
        only while two earlier offers are still not inserted. A draw that was not taken is replaced by the new one.
        Raises ValueError if anything does not fit.
        """
        with self._calls:
            self._check_open()
            started = time.perf_counter()
            offer = no_candidates() if minibatch is None else self._take_in(minibatch, labels, scores, features)
            self._pending = self._background.submit_offer(offer)
            self._may_take = True
            self._offers += 1
            self._pending_offer_s = time.perf_counter() - started
            self._clock.add_offer(self._pending_offer_s)

    def _take_in(
        self,
        minibatch: Mapping[str, torch.Tensor],
        labels: torch.Tensor | None,
        scores: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> Offer:
        count = self._check.count(minibatch, labels=labels, scores=scores, features=features)
        self._offered_samples += count
        chosen = self._generators.select.permutation(count)[: self._options.candidates]
        return self._intake.take_in(minibatch, chosen, labels=labels, scores=scores, features=features)

    def update(
        self,
        minibatch: Mapping[str, torch.Tensor] | None,
        *,
        labels: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> Representatives:
        """`take`, then `offer`: the thesis's primitive, for strategies that store nothing of the forward pass."""
        with self._calls:
            representatives = self.take()
            self.offer(minibatch, labels=labels, scores=scores, features=features)
            return representatives

    def annotate(self, ids: torch.Tensor, **states: torch.Tensor) -> int:
        """Rewrite fields of stored items, on whichever rank they live; returns how many were still there.

        `ids`: int64 (items,), as `take` gave them; `states`: fields of the schema, (items, *shape). Waits for the
        background and for other ranks, at most `timeout_s`. An item that was replaced meanwhile is not touched. Raises
        ValueError if a state does not fit the schema.
        """
        self._check_open()
        if not states:
            raise ValueError("annotate() needs at least one field to rewrite.")
        count = self._schema.check_batch(states, names=tuple(name for name in self._schema if name in states) or None)
        if ids.dtype != torch.int64 or tuple(ids.shape) != (count,):
            raise ValueError(f"ids must be {count} int64 numbers, not {tuple(ids.shape)} of {ids.dtype}.")
        known_ids = ids.cpu().numpy()
        copies = {name: byte_rows(states[name].detach().cpu()) for name in self._schema if name in states}
        return self._background.submit(lambda: self._background.annotate(known_ids, copies)).result()

    def stats(self) -> BufferStats:
        """What was measured so far; does not wait."""
        store, transport, clock, background = self._store, self._transport, self._clock, self._background
        return BufferStats(
            rank=self._member.rank,
            world_size=self._member.world_size,
            transport=transport.name,
            capacity=self._options.capacity,
            capacity_rank=store.index.capacity,
            capacity_per_class=tuple(store.index.quotas.tolist()),
            size=store.index.size,
            size_per_class=store.index.sizes(),
            size_per_rank={self._member.rank: store.index.size, **transport.sizes},
            offered=self._offers,
            offered_samples=self._offered_samples,
            candidates=store.counters.candidates,
            accepted=store.counters.accepted,
            replaced=store.counters.replaced,
            annotated=store.counters.annotated,
            draws=background.draws,
            drawn=background.drawn,
            taken=clock.taken,
            waits=clock.waits,
            served=transport.counters.items_served,
            served_in_place=transport.counters.items_placed,
            waited_s=clock.waited_s,
            offered_s=clock.offered_s,
            populate_s=clock.populate_s,
            augment_s=clock.augment_s,
            background_cpu_s=background.cpu_s,
            bytes_copied=store.counters.bytes_copied,
            bytes_received=transport.counters.bytes_received,
            bytes_sent=transport.counters.bytes_sent,
            lost_ranks=dict(transport.lost),
            left_ranks=tuple(transport.left),
            last_step=clock.last,
        )

    def state_dict(self) -> dict[str, object]:
        """Return this rank's state: items, ids, counters and random numbers, as tensors, numbers and text only.

        Waits for the background. A draw that was begun is not part of it: after restoring, `offer(None)` begins one.

        Returns:
            What `load_state_dict` takes on this rank, and `load_shards` beside those of the other ranks on any.
        """
        with self._calls:
            self._check_open()
            return self._background.submit(
                lambda: save_shard(self._store, self._generators, options=self._options, step=self._offers)
            ).result()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what this rank saved in a run on as many ranks, so that it goes on as if never interrupted.

        Call it on every rank, each with its own state, before the first `offer`.

        Args:
            state: what `state_dict` returned on this rank.

        Raises:
            ValueError: the state is another rank's, was saved on another number of ranks (see `load_shards`), does not
                fit this buffer's schema, policy, classes or capacity, or something was offered.
        """
        self._load(
            "load_state_dict",
            lambda: check_own(state, self._store, options=self._options),
            lambda: restore_own(state, self._store, self._generators),
        )

    def load_shards(self, shards: Sequence[Mapping[str, Any]]) -> None:
        """Take over this rank's part of what all ranks of a run saved, be they as many ranks or not.

        Items keep their ids. On as many ranks this does what `load_state_dict` does; on another number every rank gets
        an equal share of every class, and the random numbers begin anew. Call it on every rank before the first
        `offer`.

        Args:
            shards: what `state_dict` returned on all ranks, in their order, the same on every rank; may be read lazily.

        Raises:
            ValueError: the shards are not a whole set, do not fit this buffer's schema, policy, classes or capacity, or
                something was offered.
        """
        self._load(
            "load_shards",
            lambda: check_shards(shards, self._store, options=self._options),
            lambda: restore_shards(shards, self._store, self._generators, options=self._options),
        )

    def _load(self, name: str, check: Callable[[], None], restore: Callable[[], int]) -> None:
        with self._calls:
            self._check_open()
            if self._offers:
                raise ValueError(f"{name}() must come before the first offer().")
            check()
            self._offers = self._background.submit(restore).result()
            self._background.submit(self._transport.announce).result()

    def close(self) -> None:
        """End the background thread and leave the group; the other ranks go on without this rank's items."""
        if not self._closed:
            self._closed = True
            self._background.close()
            self._intake.close()
            with self._calls:
                self._outputs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The buffer is closed.")
