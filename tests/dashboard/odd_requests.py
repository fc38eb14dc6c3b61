"""Requests that the description of the page's interface allows, or does not: each has an answer that it describes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient

WILD = (
    *(
        "",
        "0",
        "-1",
        "1e400",
        "9" * 400,
        "nan",
        "null",
        "true",
        "newest",
        "..",
        "../..",
        "/",
        "\\",
        "%00",
        "\0",
        "a" * 5000,
    ),
    *(
        "\x1b[2J",
        "\r\nSet-Cookie: a=b",
        "ü",
        "\u202e",
        "{}",
        "[]",
        "'; --",
        "<script>",
        "%",
        "%ff",
        "2",
        "phase",
        "refreshed",
    ),
)
HEADERS = ("Host", "Origin", "Authorization", "If-None-Match", "Accept", "Range", "Content-Type", "X-Forwarded-Host")
VALUES = (
    "",
    "http://[",
    "[::1",
    "evil.example",
    "127.0.0.1:8421",
    "Bearer",
    "Bearer x",
    "*",
    "bytes=0-9999999999",
    "a" * 3000,
)
METHODS = ("GET", "GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE")
NOT_ALLOWED = {404, 405}
"""What a server answers for paths and methods that are none of the interface's."""


class OddRequests:
    """Makes requests of one interface and judges the answers.

    Args:
        client: of the application.
        seed: the same one asks the same.
    """

    def __init__(self, client: TestClient, seed: int) -> None:
        self._client, self._chance = client, random.Random(seed)
        self.description: dict[str, Any] = client.get("/api/openapi.json").json()
        self._paths = list(self.description["paths"])

    def ask(self) -> str | None:
        """Make a request; return what is wrong with its answer."""
        chance = self._chance
        path = chance.choice(self._paths)
        method = (
            chance.choice(METHODS) if chance.random() < 0.4 else next(iter(self.description["paths"][path])).upper()
        )
        described = self.description["paths"][path].get(method.lower(), {})
        url = re.sub(
            r"{(\w+)}", lambda name: quote(self._value(described, name[1]), safe=chance.choice(["", "/"])), path
        )
        query = {one["name"]: self._value(described, one["name"]) for one in self._of(described, "query")}
        query |= {chance.choice(WILD): chance.choice(WILD) for _ in range(chance.choice([0, 0, 0, 3]))}
        headers = {chance.choice(HEADERS): chance.choice(VALUES) for _ in range(chance.choice([0, 0, 1, 2]))}
        body = chance.choice([None, b"", b"{}", b"\xff" * 100, b"[" * 1000])
        answer = self._client.request(
            method, url, params=query, headers=headers, content=body if method == "POST" else None
        )
        expected = {int(status) for status in described.get("responses", {})} | {304} | NOT_ALLOWED
        if method in ("HEAD", "OPTIONS") or headers:
            expected |= {200, 400, 403}
        if answer.status_code not in expected or answer.status_code == 500:
            return f"{method} {url} {query} {headers}: {answer.status_code}, described are {sorted(expected)}"
        return None

    def faults(self, count: int) -> Iterator[str]:
        """Make requests; yield what is wrong with answers."""
        for _ in range(count):
            if (fault := self.ask()) is not None:
                yield fault

    @staticmethod
    def _of(described: dict[str, Any], place: str) -> list[dict[str, Any]]:
        return [one for one in described.get("parameters", []) if one["in"] == place]

    def _value(self, described: dict[str, Any], name: str) -> str:
        """Return a value that is allowed, or one that is not."""
        schema = next((one["schema"] for one in described.get("parameters", []) if one["name"] == name), {})
        named = self.description["components"]["schemas"]
        parts = [schema, *schema.get("anyOf", [])]
        for part in [named[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in parts]:
            if "enum" in part and self._chance.random() < 0.7:
                return str(self._chance.choice(part["enum"]))
        return self._chance.choice(["0", "1", "newest"]) if self._chance.random() < 0.4 else self._chance.choice(WILD)
