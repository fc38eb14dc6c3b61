"""Outputs: stitched images and scores, live, for other programs. Each is switched on by one setting.

The way of the data: every part reports to the hub, the hub fans out, and two processes listen there: the dashboard and,
if `[outputs]` names anything, this part. So images travel twice between processes, but never twice over a network: this
part runs beside the hub. In return a library that blocks, leaks or crashes takes nothing from the page, and outputs
work without one.

    hub ──▶ service (one thread, puts images together) ──▶ a mailbox ──▶ a thread ──▶ one output
                                                      └──▶ a mailbox ──▶ a thread ──▶ another

Putting something into a mailbox never waits. What is newer takes the place of what waits of the same image or score,
and a full mailbox lets the oldest go, so that a consumer which is slow, hung or away costs neither time nor memory.

Frames never come this way. For scans that are handed over whole, the acquisition gives the file in which the frames of
a perspective lie anyway a second name in the run's spool (`streaming/kept_perspective.py`), and they are read there.
"""
