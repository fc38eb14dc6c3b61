"""The commands of `ptychoflow`, one file each.

A command imports what it runs when it runs it, so that `--help` and a mistyped option answer at once.
"""
