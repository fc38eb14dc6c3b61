"""Trains a network on the running scan, data-parallel, with a rehearsal buffer, and publishes its weights.

From the lowest room to the highest; a room imports from lower ones alone:

    models/       networks and their weights files, for the trainer and the edge
    checkpoints/  files of nested state
    interface/    what strategies, learner and loop know of what is learnt, and nothing else: pipeline, stream, batch,
                  callback; `agreement` is the all-reduce that makes all ranks take the same kind of step
    strategies/   what a step trains on beside the stream
    training/     the algorithm: `loop` gathers, agrees, trains, ends sections; `learner` makes the steps
    online/       training on a running stream: what arrives, is acknowledged, published and reported
    pipelines/    what is learnt, in one folder for ptychography and one for image classification
    service       the trainer as a part of a run

The way of a sample on a running stream: `online/receiver` (the thread that receives and acknowledges messages),
`online/ingest` (sorts, checks and counts), `online/sample_queue`, `training/loop`, and back when it is done with.
"""
