"""Whether everything that a GPU does is right and quick: for the first time that somebody has one.

`bench` runs the sections, one after the other, in a process of their own (`worker`) that is killed when one takes too
long. `section` says what a section is, `networks` what several of them train; each other module holds one or two.
"""
