"""CURVE key pairs: one for the sockets that bind, one for those that connect.

A folder made by `make_keys` is copied to every host of a run; who does not hold it can neither connect nor read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate

from ptychoflow.streaming.errors import UserError, writing

SERVER = "server"
CLIENT = "client"
AUTHORISED = "authorised"
"""Folder of the public keys whose owners may connect."""


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85 encoding."""

    public: bytes
    secret: bytes


def make_keys(directory: Path) -> None:
    """Write a new server and client key pair; the secret files are readable by their owner only.

    Raises:
        UserError: the folder holds keys already, or cannot be written.
    """
    if (directory / f"{SERVER}.key_secret").exists():
        raise UserError(f"{directory} holds keys already; choose another folder, or delete it to make new keys")
    with writing(f"keys to {directory}"):
        authorised = directory / AUTHORISED
        authorised.mkdir(mode=0o700, parents=True)
        for name in (SERVER, CLIENT):
            _public, secret_file = create_certificates(directory, name)
            Path(secret_file).chmod(0o600)
        (authorised / f"{CLIENT}.key").write_bytes((directory / f"{CLIENT}.key").read_bytes())


def load_keys(directory: Path, name: str) -> KeyPair:
    """Return a key pair from a folder made by `make_keys`.

    Args:
        directory: the folder.
        name: `server` or `client`.

    Raises:
        UserError: a file is missing or is no key file.
    """
    path = directory / f"{name}.key_secret"
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError) as error:
        raise UserError(f"no usable key in {path}: {error}; make keys with `ptychoflow keys {directory}`") from error
    if secret is None:
        raise UserError(f"{path} holds no secret key; copy the whole folder made by `ptychoflow keys`")
    return KeyPair(public, secret)


def apply_server_keys(socket: zmq.Socket[bytes], directory: Path) -> None:
    """Make a socket that will bind accept only holders of the client key.

    Raises:
        UserError: as `load_keys`.
    """
    pair = load_keys(directory, SERVER)
    socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
    socket.curve_server = True


def apply_client_keys(socket: zmq.Socket[bytes], directory: Path) -> None:
    """Make a socket that will connect prove the client key and insist on the server's.

    Raises:
        UserError: as `load_keys`.
    """
    pair = load_keys(directory, CLIENT)
    socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
    socket.curve_serverkey = load_keys(directory, SERVER).public
