"""What is read next: told before every larger reading, so that it is known if a library crashes in it."""

from __future__ import annotations

import logging

READING = logging.getLogger(__name__)
"""Its debug messages name the file, and what in it is read next."""
