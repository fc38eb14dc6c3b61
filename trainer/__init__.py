"""Trains a network on the running scan, data-parallel, with a rehearsal buffer, and publishes its weights.

The way of a sample, one file per station:

    intake          the thread that receives messages and acknowledges those that are done with
    arrivals        sorts, checks and counts samples; keeps the validation samples
    sample_queue    training samples in the order of the stream, divided by the ends of perspectives
    loop            the algorithm: gather, agree, train; evaluate and publish at the ends of perspectives
    strategies/     what a step trains on beside the stream
    agreement       the all-reduce that makes all ranks take the same kind of step
    learner         forward, backward and optimiser step over all ranks; `averaging` follows its weights
    evaluation      validation loss beside that of the constant prediction (`constant`)
    publication     weights files on their way to the edge

Strategies, learner and loop know neither frames nor images: `pipelines/` says what is learnt, in one folder for
ptychography and one for image classification; `assembly` is what each brings to the service on a running stream.
"""
