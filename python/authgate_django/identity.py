"""What the gateway says of a request: the one place where header fields are read and the secret is compared."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from authgate_django.conf import Config, config

log = logging.getLogger("authgate_django")

# What the gateway sends as `authenticator` where no credential was accepted. No authenticator can have these names.
NO_CREDENTIAL = ("anonymous", "public")


class Refused(Exception):
    """The request has identity fields that are not trusted, or that contradict each other. The text is for clients."""


@dataclass(frozen=True)
class Identity:
    """The facts of one request. What gateway.toml and `HEADERS` do not name is empty."""

    id: str
    username: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    authenticator: str | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes


class Fields:
    """The header fields of a request, as its server interface shows them."""

    def __init__(self, meta: dict[str, Any], raw: Iterable[tuple[bytes, bytes]] | None = None) -> None:
        self._meta = meta
        self._lines: dict[str, list[str]] | None = None
        if raw is not None:  # ASGI shows each line; WSGI servers have joined them
            self._lines = {}
            for name, value in raw:
                self._lines.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    @classmethod
    def of(cls, request: Any) -> Fields:
        """Of a request of Django or of DRF."""
        scope = getattr(request, "scope", None)
        return cls(request.META, scope["headers"] if isinstance(scope, dict) and "headers" in scope else None)

    def get(self, name: str) -> str | None:
        """The value, or `None` without such a field. A field that is there twice is refused: the gateway sends one."""
        if self._lines is None:
            return self._meta.get("HTTP_" + name.upper().replace("-", "_"))
        lines = self._lines.get(name.lower(), [])
        if len(lines) > 1:
            raise Refused("The request did not come through the gateway.")
        return lines[0] if lines else None


class Unavailable(Exception):
    """It cannot be found out who the gateway has authenticated: the public keys are not there. 503, never 401."""


def waits(fields: Fields) -> bool:
    """Whether `identity` may wait for the network. An event loop must not."""
    if config().signed is None:
        return False
    from authgate_django.signed import waits_for_keys

    return waits_for_keys(fields)


def came_through_the_gateway(fields: Fields, settings: Config) -> bool:
    """Whether the request has the gateway's secret."""
    if settings.secret_header is None:
        return not settings.require_secret
    presented = (fields.get(settings.secret_header) or "").encode("latin-1", "replace")
    # Every secret is compared, so that the time does not tell which one is in use.
    return any([hmac.compare_digest(presented, secret.encode()) for secret in settings.secrets])


def identity(fields: Fields, encoding: str | None = None) -> Identity | None:
    """Who the gateway has authenticated; `None` for an anonymous request. Raises `Refused` and `Unavailable`."""
    settings = config()
    if settings.signed is not None:
        from authgate_django.signed import signed_identity  # needs PyJWT

        return signed_identity(fields)
    user_id = fields.get(settings.user_id_header)
    values = {name: fields.get(name) for name in settings.headers}
    if user_id is None and all(value is None for value in values.values()):
        return None  # a public route, or one with `optional = true`
    if not came_through_the_gateway(fields, settings):
        if settings.secret_header is None:
            log.warning("identity fields are refused: AUTHGATE in the settings has no SECRET_HEADER and SECRET")
        raise Refused("The request did not come through the gateway.")
    facts: dict[str, Any] = {"claims": {}, "attributes": {}}
    try:
        for name, fact in settings.headers.items():
            _put(facts, fact, values[name], encoding or settings.encoding)
        if user_id is not None:
            facts["id"] = decode(user_id, encoding or settings.encoding)
    except ValueError:  # not Latin-1, or not UTF-8
        raise Refused("User inactive or deleted.") from None
    source = facts.get("authenticator")
    sent = "authenticator" in settings.headers.values()  # then the gateway sends it with every request
    if sent and (source is None or (source in NO_CREDENTIAL) != (user_id is None)):
        raise Refused("The request did not come through the gateway.")
    if user_id is None:
        return None
    if not user_id:  # the gateway leaves out what is missing
        raise Refused("User inactive or deleted.")
    return Identity(**facts)


def _put(facts: dict[str, Any], fact: str, value: str | None, encoding: str) -> None:
    if value is None:
        return
    kind, _, name = fact.partition(".")
    if name:
        facts[kind][name] = decode(value, encoding)
    elif fact in ("groups", "scopes"):  # elements escape `%` and `,` under either encoding
        facts[fact] = tuple(decode(element, "percent") for element in value.split(",") if element)
    else:
        facts[fact] = decode(value, encoding)


def decode(value: str, encoding: str) -> str:
    """The text that the gateway has encoded. Servers decode the bytes of a header field as Latin-1."""
    encoded = value.encode("latin-1")
    return (unquote_to_bytes(encoded) if encoding == "percent" else encoded).decode()
