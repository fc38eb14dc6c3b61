"""Counts on their way to a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptychoflow.inference_edge.backends.staging import Staging


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", "float64", "bool"])
def test_counts_of_every_kind_reach_the_network_as_they_are(dtype):
    counts = np.random.default_rng(0).integers(0, 200, (5, 6, 4)).astype(dtype)
    counts.flags.writeable = False
    staging = Staging(3)
    for some in (counts[:2], counts, counts[4:]):
        staged = staging.float32(some)
        assert staged.dtype == torch.float32
        np.testing.assert_array_equal(staged.numpy(), some.astype(np.float32), strict=True)
    other = np.ones((2, 3, 3), dtype)
    np.testing.assert_array_equal(staging.float32(other).numpy(), other.astype(np.float32), strict=True)


def test_what_need_not_be_converted_is_not_copied():
    counts = np.ones((2, 3, 3), np.float32)
    assert np.shares_memory(Staging(2).float32(counts).numpy(), counts)


def test_large_counts_are_not_cut_off():
    counts = np.array([[[65535, 40000]]], np.uint16)
    assert Staging(1).float32(counts).flatten().tolist() == [65535.0, 40000.0]
