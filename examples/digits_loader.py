"""The digits of `digits.py` with `RehearsalLoader`: the loop is an ordinary one, the loader brings the old digits."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ptychoflow.buffer import Field, RehearsalBuffer, RehearsalLoader, Schema


def main() -> None:
    """Learn five tasks of two digits each, and tell how many digits are recognised afterwards."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schema = Schema(image=Field((8, 8)))
    with RehearsalBuffer(schema, capacity=200, representatives=32, candidates=8, classes=10) as buffer:
        for task in range(5):
            new = (labels == 2 * task) | (labels == 2 * task + 1)
            new_digits = DataLoader(TensorDataset(images[new], labels[new]), batch_size=16, shuffle=True)
            loader = RehearsalLoader(new_digits, buffer, fields=("image", "label"), labels="label")
            for _ in range(5):
                for batch in loader:
                    loss = functional.cross_entropy(network(batch["image"]), batch.labels)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    right = network(images).argmax(1) == labels
    print(f"recognised after all tasks: {right.float().mean():.1%}")  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
