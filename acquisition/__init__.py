"""The acquisition: takes frames from a source, publishes them, and has ground truth found for what is learnt from.

The way of a frame of a scan (`ptychography`); labelled images (`classification`) take the same one, without ground
truth:

1. `sources.open_scan` opens a file or a simulation: a `Scan` of `Perspective`s, whose frames are read in batches.
2. `ScanStreamer` gives each frame its role, records and counts it, and posts it to the edge.
3. When a perspective is complete, the regime decides whether its frames go to `GroundTruthWorker`, a process of its own
   that runs phase retrieval, brings the object to the common gauge and cuts it into patches (`retrieval`).
4. What comes back is kept in the `Journal`, posted to the edge as a reference image and to the ranks as samples.

Everything is done in one thread, whose every wait goes through `AcquisitionLoop` (`publishing`): it sends what is
posted, hears acknowledgements and commands, and reports counts. The publisher keeps messages until they are
acknowledged.
"""
