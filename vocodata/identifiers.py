r"""What may name a patient, and how it is kept out of the store: keyed hashes, and a salt.

A plain hash of an identifier hides nothing from whoever can guess it. So those that become part of
a scan's name are hashed with a salt, which lies beside the build's ledger and never in the store:
the same salt gives the same names, and without it nobody can try identifiers out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from vocodata.errors import SaltError

if TYPE_CHECKING:
    from pathlib import Path

SALT_VARIABLE = "VOCO_SALT"
MIN_SALT_BYTES = 16
# What is shaped like a DICOM UID: five numbers and more, joined by dots, whatever stands before
# them (`CT.1.2.840...`); seven and more where a name has `_` or `-` for dots; 2.25 and a UUID.
_UID = re.compile(
    r"(?<![0-9])(?:2([._-])25\1[0-9]{12,}|[0-2](?:(?:\.[0-9]+){4,}|(?:_[0-9]+){6,}|(?:-[0-9]+){6,}))"
)


def keyed_hash(salt: bytes, text: str, *, digits: int) -> str:
    """HMAC-SHA256 of a text, the first hexadecimal digits.

    >>> keyed_hash(b"salt", "1.2.840.1", digits=8) == keyed_hash(b"pepper", "1.2.840.1", digits=8)
    False
    """
    return hmac.new(salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[
        :digits
    ]


def hide_uids(text: str, salt: bytes) -> str:
    """The text with everything shaped like a DICOM UID replaced by its keyed hash.

    >>> hide_uids("CT/1.2.840.113619.2.55/5.0", b"salt")
    'CT/uid-445e3ec2/5.0'
    """
    return _UID.sub(lambda uid: f"uid-{keyed_hash(salt, uid.group(), digits=8)}", text)


def without_uids(text: str) -> str:
    """The text with everything shaped like a DICOM UID left out.

    >>> without_uids("1.2.840.113619.2.55.dcm is damaged")
    '(uid).dcm is damaged'
    """
    return _UID.sub("(uid)", text)


def salt_path(ledger: Path) -> Path:
    """Where the salt of a build is unless told otherwise, beside its ledger.

    >>> from pathlib import Path
    >>> salt_path(Path("/data/ct.zarr.ledger.sqlite")).as_posix()
    '/data/ct.zarr.salt'
    """
    return ledger.with_name(f"{ledger.name.removesuffix('.sqlite').removesuffix('.ledger')}.salt")


class Salt(NamedTuple):
    """A build's salt.

    Attributes:
        key: Its bytes.
        new_at: Where it still has to be kept, or None.
    """

    key: bytes
    new_at: Path | None = None

    @property
    def mark(self) -> str:
        """Tells salts apart, and nothing about them."""
        return keyed_hash(self.key, "voco: mark of the salt", digits=16)

    def keep(self) -> None:
        """Write a new one down, readable by its owner only.

        Raises:
            SaltError: It cannot be written.
        """
        if self.new_at is None:
            return
        try:
            aside = self.new_at.with_name(f"{self.new_at.name}.tmp-{secrets.token_hex(8)}")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self.key + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                # Whole or not there: a salt cut short would end every later build. Never over
                # another, which names were made with meanwhile.
                if self.new_at.exists():
                    raise FileExistsError(errno.EEXIST, "another build has made one meanwhile")
                aside.replace(self.new_at)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            msg = f"Salt {self.new_at} cannot be written ({error.strerror}). Give another --ledger."
            raise SaltError(msg) from error


def take_salt(ledger: Path, *, file: Path | None = None, known: str | None = None) -> Salt:
    """The salt of a build: the one given, else the one beside the ledger, else a new one.

    Args:
        ledger: Of the build.
        file: Where the salt is; None takes the variable VOCO_SALT, then the file beside the ledger.
        known: Mark of the salt that the store's names were made with.

    Raises:
        SaltError: It is not there, too short, or another one than before.
    """
    path = file or salt_path(ledger)
    given = None if file else os.environ.get(SALT_VARIABLE)
    if given is None and file is None and known is None and not path.exists():
        return Salt(secrets.token_hex(32).encode(), path)
    where = f"Salt {path}" if given is None else f"The variable {SALT_VARIABLE}"
    salt = Salt(_stored(path) if given is None else given.strip().encode())
    if len(salt.key) < MIN_SALT_BYTES:
        msg = f"{where} has {len(salt.key)} bytes; expected at least {MIN_SALT_BYTES}."
        raise SaltError(msg)
    if known is not None and salt.mark != known:
        msg = (
            f"{where} is not the one that the scans of this store were named with. Give that one "
            f"(--salt-file, or {SALT_VARIABLE}), or build again with --overwrite."
        )
        raise SaltError(msg)
    return salt


def salt_beside(ledger: Path) -> bytes:
    """The salt for looking at sources, not for building: nothing is made, none is no error."""
    given = os.environ.get(SALT_VARIABLE)
    if given is not None:
        return given.strip().encode()
    with contextlib.suppress(OSError):
        return salt_path(ledger).read_bytes().strip()
    return b""


def _stored(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        msg = (
            f"Salt {path} cannot be read ({error.strerror}); scans are named with it. Restore the "
            f"file, give the salt by --salt-file or {SALT_VARIABLE}, or build again with "
            "--overwrite."
        )
        raise SaltError(msg) from error
