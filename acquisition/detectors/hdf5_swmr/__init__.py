"""HDF5 files that another program is still writing (SWMR), or writes one after the other into a folder.

A file is a series. Frames stay where they are: what is received says which rows of which file are there, so the file is
the recording. SWMR does not work over NFS or SMB.
"""
