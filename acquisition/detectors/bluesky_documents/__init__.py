"""Documents of a bluesky RunEngine, as its publisher sends them through a ZeroMQ proxy: msgpack or JSON, never pickle.

Events say where the probe was; stream resources and stream datums say which rows of which HDF5 file are frames, and
these stay in their files.
"""
