"""Positions by message from a program of the user's own: `PositionSender`, or anything that speaks its wire format.

A program that knows where the probe was sends it in ten lines::

    from ptychoflow.acquisition.detectors.position_sender import PositionSender

    with PositionSender() as sender:
        sender.begin(total=400)
        for number in range(400):
            sender.send([read_stage_m()])     # (y, x) in metres of one sample or of many
        sender.end()

The wire format is in `messages`.
"""

from ptychoflow.acquisition.detectors.position_sender.sender import PositionSender

__all__ = ["PositionSender"]
