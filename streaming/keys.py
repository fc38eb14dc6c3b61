"""CURVE key pairs: one for each role in a run.

`make_keys` makes a folder with the secret of every role, `ROLE.key_secret`, and the public keys of all in `public/`. A
host needs `public/` and the secrets of the roles that it has, no others: with them it proves who it is, and each socket
admits the roles that may connect to it.
"""

from __future__ import annotations

import shlex
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from ptychoflow.streaming.access import Access, Role
from ptychoflow.streaming.errors import UserError, writing

PUBLIC = "public"
Z85_BYTES, KEY_BYTES = 40, 32
OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
FORMER = ("server.key_secret", "client.key_secret")
"""What an earlier version made: one pair for all who bind, one for all who connect."""


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85 encoding."""

    public: bytes
    secret: bytes


def make_keys(directory: Path) -> None:
    """Write a new key pair for every role; the secret files are readable by their owner only.

    Raises:
        UserError: the folder holds keys already, or cannot be written.
    """
    if any(directory.glob("*.key_secret")):
        raise UserError(f"{directory} holds keys already; choose another folder, or delete it to make new keys")
    with writing(f"keys to {directory}"):
        (directory / PUBLIC).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as private:
            for role in Role:
                public, secret = map(Path, create_certificates(private, role.value))
                secret.chmod(0o600)
                secret.rename(_secret_file(directory, role))
                public.rename(_public_file(directory, role))


def own_roles(directory: Path) -> list[Role]:
    """Return the roles whose secrets a folder holds.

    Raises:
        UserError: the folder was made by an earlier version.
    """
    if any((directory / name).exists() for name in FORMER):
        raise UserError(
            f"{directory} holds keys of an earlier version, which had one pair for all: make new ones with "
            "`ptychoflow keys NEW`, and give each host NEW/public and the secrets of its own roles"
        )
    return [role for role in Role if _secret_file(directory, role).exists()]


def load_pair(directory: Path, roles: Iterable[Role]) -> KeyPair:
    """Return the key pair of the first of some roles whose secret a folder holds.

    Raises:
        UserError: it holds none of them, one that others can read, or one that is no key file.
    """
    roles = list(roles)
    own = own_roles(directory)
    role = next((role for role in roles if role in own), None)
    if role is None:
        names = " or ".join(f"{role}.key_secret" for role in roles)
        raise UserError(
            f"{directory} holds no {names}: copy it from the folder that `ptychoflow keys` has made; a host needs the "
            "secrets of its own roles, and public/"
        )
    path = _secret_file(directory, role)
    public, secret = _load(directory, path)
    if secret is None:
        raise UserError(f"{path} holds no secret key: copy it from the folder that `ptychoflow keys` has made")
    return KeyPair(public, secret)


def load_public(directory: Path, role: Role) -> bytes:
    """Return the public key of a role.

    Raises:
        UserError: the file is missing or is no key file.
    """
    return _load(directory, _public_file(directory, role))[0]


def public_keys(directory: Path, roles: Iterable[Role]) -> frozenset[bytes]:
    """Return the public keys of some roles, as far as the folder holds them.

    Raises:
        UserError: one of them is no key file.
    """
    return frozenset(load_public(directory, role) for role in roles if _public_file(directory, role).exists())


def apply_server_keys(socket: zmq.Socket[bytes], directory: Path, access: Access) -> None:
    """Make a socket that will bind prove who it is, and ask the authenticator about whoever connects.

    Raises:
        UserError: as `load_pair`.
    """
    pair = load_pair(directory, [access.owner])
    socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
    socket.curve_server = True
    socket.zap_domain = access.name.encode()


def apply_client_keys(socket: zmq.Socket[bytes], directory: Path, access: Access, roles: Iterable[Role]) -> None:
    """Make a socket that will connect prove the first of some roles, and insist on the owner of the other side.

    Raises:
        UserError: as `load_pair` and `load_public`.
    """
    pair = load_pair(directory, roles)
    socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
    socket.curve_serverkey = load_public(directory, access.owner)


def _load(directory: Path, path: Path) -> tuple[bytes, bytes | None]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        public, secret = load_certificate(path)
        for key in (public, secret or public):
            if len(key) != Z85_BYTES or len(z85.decode(key)) != KEY_BYTES:
                raise ValueError("it holds no key of 40 characters")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"no usable key in {path}: {reason}; make keys with `ptychoflow keys {shlex.quote(str(directory))}`, "
            "or copy it from where they were made"
        ) from error
    if secret is not None and mode & OF_OTHERS:
        raise UserError(
            f"{path} has mode {mode:o}, others can read it: chmod 600 {path}, or make new keys if others have"
        )
    return public, secret


def _secret_file(directory: Path, role: Role) -> Path:
    return directory / f"{role}.key_secret"


def _public_file(directory: Path, role: Role) -> Path:
    return directory / PUBLIC / f"{role}.key"
