"""DER++ that revises its memories: stored activations follow the network where it has become better.

In the manner of M. Boschi et al., "Class-incremental continual learning into the extended DER-verse", 2022, which
rewrites stored logits with what was learnt after they were stored; for outputs of any kind it is done where the truth
says that the newer activation is nearer.
"""

from __future__ import annotations

import torch

from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.pipeline import Output
from ptychoflow.trainer.strategies.derpp import DarkExperienceReplayPlusPlus


class RevisedDarkExperienceReplay(DarkExperienceReplayPlusPlus):
    """DER++, but a representative that is now predicted better than when it was stored gets its new activations."""

    def after_forward(self, batch: Batch, output: Output) -> None:
        """Revise the representatives, on whichever rank they live, then go on as DER++; waits for the former."""
        self._revise(batch, batch.of_representatives(output))
        super().after_forward(batch, output)

    def _revise(self, batch: Batch, current: Output) -> None:
        truth = batch.of_representatives(batch.target)
        error_now, error_stored = (
            self._pipeline.error(found, truth).sum(dim=1) for found in (current, batch.activation)
        )
        # what a skipped step left may be no number, and anything is nearer than that
        better = error_now.detach() < error_stored.nan_to_num(nan=torch.inf, posinf=torch.inf)
        if better.any():
            revised = zip(self._pipeline.activations, current, strict=True)
            self.buffer.update_items(
                batch.ids[better.cpu()], **{name: head[better].detach().half() for name, head in revised}
            )
