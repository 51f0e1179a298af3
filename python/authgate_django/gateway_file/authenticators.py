"""Authenticators and stores, from the settings and the authentication classes of the views."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.conf import settings

TOKEN = "rest_framework.authentication.TokenAuthentication"  # noqa: S105
SESSION = "rest_framework.authentication.SessionAuthentication"
KNOX = "knox.auth.TokenAuthentication"
JWT = "rest_framework_simplejwt.authentication.JWTAuthentication"
GATEWAY = "authgate_django.authentication.GatewayAuthentication"
# What a subclass may not change if the gateway is to do the same.
METHODS = ("authenticate", "authenticate_credentials", "get_validated_token", "get_raw_token", "get_header", "get_user")


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
            return installed()
        for path, kind in [(KNOX, "knox"), (TOKEN, "token"), (JWT, "jwt")]:
            base = bases.get(path)
            if base is None:
                continue
            changed = [name for name in METHODS if getattr(cls, name, None) is not getattr(base, name, None)]
            stateless = "JWTStatelessUserAuthentication" in {each.__name__ for each in cls.__mro__}
            if changed and not stateless:
                self.others[cls.__name__] = f"has {', '.join(changed)} of its own"
                return []
            if kind == "token":
                return [Kind(kind, (cls.keyword,))]  # type: ignore[attr-defined]
            return [_jwt() if kind == "jwt" else _knox()]
        reason = "sessions of browsers" if SESSION in bases else "the gateway cannot do the same"
        self.others[cls.__name__] = reason
        return []


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


def simple_jwt() -> dict[str, Any]:
    return dict(getattr(settings, "SIMPLE_JWT", None) or {})


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
