"""Class-incremental digits with the rehearsal buffer alone: two new digits per task, old ones are never seen again."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from ptychoflow.buffer import Field, RehearsalBuffer, Schema


def accuracy_after_all_tasks(*, rehearse: bool) -> float:
    """Share of all digits recognised after five tasks of two digits each."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    with RehearsalBuffer(
        Schema(image=Field((8, 8))), capacity=200, representatives=32, candidates=8, classes=10
    ) as buffer:
        for task in range(5):
            new = torch.nonzero((labels == 2 * task) | (labels == 2 * task + 1)).flatten()
            for _ in range(5):
                for chosen in new[torch.randperm(len(new))].split(16):
                    x, y = images[chosen], labels[chosen]
                    if rehearse:
                        old = buffer.update({"image": x}, labels=y)
                        x, y = torch.cat([x, old.tensors["image"]]), torch.cat([y, old.labels])
                    optimizer.zero_grad()
                    functional.cross_entropy(network(x), y).backward()
                    optimizer.step()
    return float((network(images).argmax(1) == labels).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for rehearse in (False, True):
        print(f"{'with' if rehearse else 'without'} the buffer: {accuracy_after_all_tasks(rehearse=rehearse):.1%}")  # noqa: T201
