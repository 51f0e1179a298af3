"""The header fields of a request, and what they say: the one place where fields are read and the secret is compared."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from authgate_django.conf import Config


class Refused(Exception):
    """The request has identity fields that are not trusted, or that contradict each other. The text is for clients."""


class Unavailable(Exception):
    """It cannot be found out who the gateway has authenticated: the public keys are not there. 503, never 401."""


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


def came_through_the_gateway(fields: Fields, settings: Config) -> bool:
    """Whether the request has the gateway's secret."""
    if settings.secret_header is None:
        return not settings.require_secret
    presented = (fields.get(settings.secret_header) or "").encode("latin-1", "replace")
    # Every secret is compared, so that the time does not tell which one is in use.
    return any([hmac.compare_digest(presented, secret.encode()) for secret in settings.secrets])
