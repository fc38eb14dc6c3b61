"""The inference edge: images every frame as it arrives with the newest weights.

The way of a frame, in the edge of a scan (`ptychography`); labelled images (`classification`) take the same one:

1. `StreamReceiver` takes messages from the inbox, drops what is known, and queues new frames (`FrameQueue`).
2. `FirstPass` gives the network the next frames of one perspective, as many as `BatchSizer` allows;
   `Reconstructor` runs it in a thread of its own through a backend's `Runner`, which on a GPU has the next frames
   copied while it computes; `WakeUp` tells when it is done.
3. The patches are stitched into the perspective's `Mosaic`s; the publisher is told to hold the messages.
4. A perspective that is final is scored, written by `Archive`, and its messages are acknowledged once the disk has it.

The way of weights: `WeightsReceiver` fetches the newest, has them checked on frames in a thread of its own, and
switches to them between two batches. Kept frames are then imaged again while nothing else is to be done.

`Edge` is the loop that both edges run, `EdgeLinks` what connects them with the other parts.
"""
