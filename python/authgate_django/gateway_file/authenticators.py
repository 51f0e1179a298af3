"""Authenticators and stores, from the settings and the authentication classes of the views."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError

from authgate_django.gateway_file.jwt_users import (
    RULE,
    Unsupported,
    has_own_rule,
    jwt_users,
    require_stored_ids,
    simple_jwt,
)

TOKEN = "rest_framework.authentication.TokenAuthentication"  # noqa: S105
SESSION = "rest_framework.authentication.SessionAuthentication"
KNOX = "knox.auth.TokenAuthentication"
JWT = "rest_framework_simplejwt.authentication.JWTAuthentication"
STATELESS = "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication"
GATEWAY = "authgate_django.authentication.GatewayAuthentication"
# What a subclass may not change if the gateway is to do the same.
MEMBERS = (
    "authenticate",
    "authenticate_credentials",
    "get_validated_token",
    "get_raw_token",
    "get_header",
    "get_user",
    "get_model",
    "model",
)


@dataclass(frozen=True)
class Kind:
    """One authenticator of the file: what makes it differ from another of its kind."""

    kind: str  # token | knox | jwt
    scheme: tuple[str, ...]


@dataclass
class Authenticators:
    """Those that some view uses, by the name that routes have for them."""

    names: dict[Kind, str] = field(default_factory=dict)
    # Classes that stay in Django, with the reason.
    others: dict[str, str] = field(default_factory=dict)

    def of(self, classes: Iterable[type]) -> tuple[tuple[str, ...], list[str]]:
        """The gateway's authenticators for these classes, and the names of those that stay in Django."""
        names: list[str] = []
        others: list[str] = []
        for cls in classes:
            kinds = self._kinds(cls)
            names += [self._name(kind) for kind in kinds]
            if not kinds:
                others.append(cls.__name__)
        return tuple(dict.fromkeys(names)), others

    def _name(self, kind: Kind) -> str:
        if kind not in self.names:
            count = sum(1 for known in self.names if known.kind == kind.kind)
            self.names[kind] = kind.kind + (str(count + 1) if count else "")
        return self.names[kind]

    def _kinds(self, cls: type) -> list[Kind]:
        bases = {f"{base.__module__}.{base.__qualname__}": base for base in cls.__mro__}
        if GATEWAY in bases:  # the project has moved: what it had before is known by its apps
            return self._moved()
        for path, kind in [(KNOX, "knox"), (TOKEN, "token"), (STATELESS, "jwt"), (JWT, "jwt")]:
            base = bases.get(path)
            if base is None:
                continue
            changed = [name for name in MEMBERS if getattr(cls, name, None) is not getattr(base, name, None)]
            reason = f"has {', '.join(changed)} of its own" if changed else _obstacle(kind)
            if reason is not None:
                self.others[cls.__name__] = reason
                return []
            if kind == "token":
                return [Kind(kind, (cls.keyword,))]  # type: ignore[attr-defined]
            return [_jwt() if kind == "jwt" else _knox()]
        stays = "sessions of browsers" if SESSION in bases else "the gateway cannot do the same"
        self.others[cls.__name__] = stays
        return []

    def _moved(self) -> list[Kind]:
        kinds = installed()
        try:
            for kind in kinds:
                _require_same_users(kind.kind)
        except Unsupported as unsupported:
            raise CommandError(f"{unsupported} {unsupported.remedy}") from None
        if any(kind.kind == "jwt" for kind in kinds) and has_own_rule():
            self.others[RULE] = "code of the project; the gateway and GatewayAuthentication do not call it"
        return kinds


def _obstacle(kind: str) -> str | None:
    """Why the gateway cannot find the users of such tokens as Django does."""
    if kind == "jwt" and has_own_rule():
        return f"{RULE} of SIMPLE_JWT is code of the project"
    try:
        _require_same_users(kind)
    except Unsupported as unsupported:
        return str(unsupported)
    return None


def _require_same_users(kind: str) -> None:
    """Raises `Unsupported`."""
    if kind == "jwt":
        jwt_users()
    else:
        require_stored_ids()


def installed() -> list[Kind]:
    """What the installed apps make tokens for."""
    found = []
    if apps.is_installed("rest_framework.authtoken"):
        found.append(Kind("token", ("Token",)))
    if apps.is_installed("knox"):
        found.append(_knox())
    if apps.is_installed("rest_framework_simplejwt") or hasattr(settings, "SIMPLE_JWT"):
        found.append(_jwt())
    return found


def _jwt() -> Kind:
    types = simple_jwt().get("AUTH_HEADER_TYPES", ("Bearer",))
    return Kind("jwt", (types,) if isinstance(types, str) else tuple(types))


def _knox() -> Kind:
    return Kind("knox", ((getattr(settings, "REST_KNOX", None) or {}).get("AUTH_HEADER_PREFIX", "Token"),))


def seconds(value: Any) -> str | None:
    """A duration of gateway.toml; `None` for none."""
    number = value.total_seconds() if isinstance(value, timedelta) else float(value or 0)
    if not number:
        return None
    return f"{int(number)}s" if number == int(number) else f"{int(number * 1000)}ms"
