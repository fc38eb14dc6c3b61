"""Messages of a PandA for `mutated_messages`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.panda.decoder import PandaDecoder
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings

FIELDS = (
    '<field name="COUNTER1.OUT" type="double" capture="Value" scale="1" offset="0" units="" />\n'
    '<field name="INENC2.VAL" type="double" capture="Mean" scale="1e-3" offset="0" units="um" />\n'
    '<field name="INENC1.VAL" type="double" capture="Mean" scale="1e-3" offset="0" units="mm" />\n'
    '<field name="PCAP.BITS2" type="uint32" capture="Value" />\n'
)
SAMPLE = struct.Struct("<dddI")
CAME_NS = 1796000000000000000


def messages() -> Sequence[Message]:
    """Return those of two captures, the second joined late."""
    return [message for missed in (0, 3) for message in _capture(missed)]


def decoder() -> PandaDecoder:
    """Return a decoder of positions by trigger."""
    return PandaDecoder(
        PandaSettings(
            host="127.0.0.1",
            field_y="INENC2.VAL.Mean",
            field_x="INENC1.VAL",
            trigger_field="COUNTER1.OUT",
            stale_first_sample=True,
        )
    )


def _capture(missed: int) -> Sequence[Message]:
    data = f'<data missed="{missed}" process="Scaled" format="Framed" sample_bytes="{SAMPLE.size}" />'
    header = f"<header>\n{data}\n<fields>\n{FIELDS}</fields>\n</header>".encode()
    blocks = []
    for place, count in enumerate((1, 7, 40), start=1):
        samples = b"".join(SAMPLE.pack(number, number * 0.5, -number * 0.5, 1) for number in range(count))
        blocks.append([b"BIN " + struct.pack("<I", 8 + len(samples)) + samples, b"%d %d" % (CAME_NS, place)])
    return [[header, b"%d" % CAME_NS], *blocks, [b"END 48 Ok", b"%d 4" % CAME_NS]]


STREAM = Stream(decoder, messages)
