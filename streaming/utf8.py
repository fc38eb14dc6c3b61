"""Texts that have no UTF-8, such as names of files that were written in another encoding."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

StructT = TypeVar("StructT", bound=msgspec.Struct)


def in_utf8(struct: StructT) -> StructT:
    r"""Return a message whose texts can be sent: what has no UTF-8 is written out, such as `\udce4`."""
    return msgspec.convert(_in_utf8(msgspec.to_builtins(struct)), type(struct))


def _in_utf8(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list():
            return [_in_utf8(one) for one in value]
        case dict():
            return {_in_utf8(key): _in_utf8(one) for key, one in value.items()}
        case _:
            return value
