"""Live sources: detectors that send frames, and what says where the probe was, one folder each.

Data moves one way: a connection drains its socket in the receiver process, which appends every message to the arrivals
file as it came; the acquisition reads that file as it grows, a decoder makes arrivals of the messages, and the joiner
makes frames at positions of these. A run that is resumed reads the same files from their beginning.

Every folder has the same four modules: `settings`, `connection`, `decoder` and `simulator`.
"""
