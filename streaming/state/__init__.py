"""How a run stands, reduced from its telemetry: `run.RunState`, which page, summary, report and progress read.

What comes is hostile until shown otherwise: every event is taken in whatever its figures are, and everything kept is
bounded, whatever a night brings.
"""
