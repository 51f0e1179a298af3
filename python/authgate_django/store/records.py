"""Records of the store: JSON with the members and the order that `authgate token import` writes. Uses no Redis."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import unicodedata
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any

from django.utils import timezone

Record = dict[str, Any]

USER = ("id", "username", "email", "groups", "active", "password_md5", "attributes")
TOKEN = ("user", "created", "expires", "scopes", "name", "revoked")
LAYOUT_VERSION = 1
SEALED = b"s1."  # the beginning of a sealed value
DIGEST = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?\Z")  # SHA-256 or SHA-512


class Unstorable(Exception):
    """The row cannot be a record. The text says why, without values that could be secret."""


class Keys:
    """The names of the keys of the layout, and the form of their values.

    With a seal, a value is `s1.`, the HMAC of the key's name and the value, `.`, and the value. The name of a token has
    the HMAC of its digest. The gateway refuses other values.
    """

    def __init__(self, prefix: str, seal: bytes | None = None) -> None:
        self._seal = seal
        self.layout = f"{prefix}layout"
        self.users = f"{prefix}user:"
        self.tokens = f"{prefix}token:"
        self.names = f"{prefix}user-by-name:"
        self._tokens_of = f"{prefix}tokens-of:"

    def user(self, user_id: str) -> str:
        return self.users + user_id

    @property
    def is_sealed(self) -> bool:
        return self._seal is not None

    def name(self, digest: str) -> str:
        """How a token with this digest is named."""
        return digest if self._seal is None else hmac.new(self._seal, digest.encode(), "sha256").hexdigest()

    def token(self, name: str) -> str:
        return self.tokens + name

    def user_by_name(self, name: str) -> str:
        return self.names + name

    def tokens_of(self, user_id: str) -> str:
        return self._tokens_of + user_id

    def sealed(self, key: str, value: bytes) -> bytes:
        """The value as it is stored under the key."""
        if self._seal is None:
            return value
        mac = hmac.digest(self._seal, key.encode() + b"\0" + value, "sha256")
        return SEALED + urlsafe_b64encode(mac).rstrip(b"=") + b"." + value

    def value(self, key: str, stored: bytes | None) -> bytes | None:
        """The value that is stored under the key. `None`: there is none, or one without the seal."""
        if self._seal is None or stored is None:
            return stored
        value = stored[len(SEALED) + 44 :]  # an HMAC has 43 characters
        return value if hmac.compare_digest(self.sealed(key, value), stored) else None


def parse(stored: bytes | None, required: str) -> Record | None:
    """The record; `None` if there is none, or one that no program can use."""
    try:
        record = json.loads(stored) if stored is not None else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get(required), str) else None


def parse_user(stored: bytes | None, user_id: str) -> Record | None:
    record = parse(stored, "id")
    return record if record is not None and record["id"] == user_id else None


def parse_token(stored: bytes | None) -> Record | None:
    return parse(stored, "user")


def is_revoked(token: Record | None) -> bool:
    return token is not None and token.get("revoked") is not None


def merge(order: tuple[str, ...], stored: Record | None, members: Record) -> Record:
    """The members over those of the stored record, which keeps the others. Empty ones are left out."""
    merged = {**(stored or {}), **members}
    known = [name for name in order if name in merged and merged[name] not in (None, [], {})]
    return {name: merged[name] for name in [*known, *(name for name in merged if name not in order)]}


def encode(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def is_text(value: str) -> bool:
    """Whether the gateway accepts the text: no control character, no blank at either end."""
    return value == value.strip() and all(unicodedata.category(letter) != "Cc" for letter in value)


def is_user_id(value: str) -> bool:
    return is_text(value) and 1 <= len(value.encode()) <= 255


def text(name: str, value: Any) -> str | None:
    """A text; an empty one is none. Raises `Unstorable`."""
    value = "" if value is None else str(value)
    if not is_text(value):
        raise Unstorable(f"its {name} has a control character, or a blank at an end")
    return value or None


def seconds(time: datetime | None) -> int | None:
    """Unix seconds. Without a time zone it is in Django's."""
    if time is None:
        return None
    aware = timezone.make_aware(time, timezone.get_default_timezone()) if timezone.is_naive(time) else time
    return int(aware.timestamp() // 1)


def password_md5(password: str) -> str:
    """What SimpleJWT's CHECK_REVOKE_TOKEN puts into a token."""
    return hashlib.md5(password.encode(), usedforsecurity=False).hexdigest().upper()
