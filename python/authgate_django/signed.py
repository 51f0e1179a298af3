"""Signed identity: verifies the JWT of the gateway. No query, and no network call but for keys that are not known."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jwt

from authgate_django.conf import Signed, config
from authgate_django.fields import Fields, Identity, Refused, came_through_the_gateway
from authgate_django.jwks import key_set
from authgate_django.keys import PublicKey

TYP = "authgate-identity+jwt"
REQUIRED = ["iss", "sub", "aud", "iat", "exp"]
# Seconds that the clock of the gateway may be ahead. `exp` needs none: half of the lifetime is left in every request.
MAX_AHEAD = 10
UNTRUSTED = "The request did not come through the gateway."


@dataclass(frozen=True, eq=False)
class SignedIdentity(Identity, Mapping[str, Any]):
    """The facts of a token, and as a mapping the claims of the token itself: `identity["sub"]`."""

    token: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.token[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.token)

    def __len__(self) -> int:
        return len(self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash((self["iss"], self["aud"], self.id, self["iat"]))


def waits_for_keys(fields: Fields) -> bool:
    """Whether `signed_identity` would wait for keys. An event loop must not."""
    settings = _settings()
    if settings.jwks_url is None:
        return False
    try:
        token = fields.get(settings.header)
        return token is not None and not key_set(settings.jwks_url).is_known(_header(token)["kid"])
    except Refused:
        return False  # without a look at the keys


def signed_identity(fields: Fields) -> SignedIdentity | None:
    """Who the gateway has authenticated; `None` without a token. Raises `Refused` and `Unavailable`."""
    settings = _settings()
    token = fields.get(settings.header)
    if token is None:
        return None  # a public route, or one with `optional = true`
    if config().secret_header is not None and not came_through_the_gateway(fields, config()):
        raise Refused(UNTRUSTED)
    return _identity(verify(token, settings))


def verify(token: str, settings: Signed) -> dict[str, Any]:
    """The claims of a valid token. Raises `Refused` and `Unavailable`."""
    header = _header(token)
    for key in _candidates(header, settings):
        try:
            claims = _verified(token, key, settings)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        issued, expires, now = claims["iat"], claims["exp"], time.time()
        if not isinstance(issued, (int, float)) or not isinstance(expires, (int, float)):
            continue
        if issued <= now + MAX_AHEAD and now < expires:
            return copy.deepcopy(claims)  # a view may change what it has
    raise Refused(UNTRUSTED)


@lru_cache(maxsize=1024)
def _verified(token: str, key: PublicKey, settings: Signed) -> dict[str, Any]:
    """The claims of a token that this key has signed. The gateway sends a token many times, so it is verified once.

    A refused token is not remembered. A key that is gone is not asked for, so its tokens are not found here.
    """
    return jwt.decode(
        token,
        key.key,
        algorithms=[key.algorithm],
        issuer=settings.issuer,
        audience=settings.audience,
        # One audience, not a list that has it among others. `iat` is checked at each request, `exp` too.
        options={"require": REQUIRED, "strict_aud": True, "verify_iat": False},
    )


def _header(token: str) -> dict[str, Any]:
    """The header of a token of the gateway, before its signature is verified. Raises `Refused`."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Refused(UNTRUSTED) from None
    if header.get("typ") != TYP or "crit" in header or not isinstance(header.get("kid"), str):
        raise Refused(UNTRUSTED)
    return header


def _candidates(header: dict[str, Any], settings: Signed) -> list[PublicKey]:
    """The keys that the token may be verified with: of its id, and of the algorithm that it names."""
    kid = header["kid"]
    if settings.jwks_url is not None:
        key = key_set(settings.jwks_url).find(kid)
        keys = [] if key is None else [key]
    else:
        keys = [key for key in settings.keys if key.kid in (None, kid)]
    return [key for key in keys if key.algorithm == header.get("alg")]


def _identity(claims: dict[str, Any]) -> SignedIdentity:
    texts = {name: claims.get(name, "") for name in ("sub", "username", "email")}
    lists = {name: claims.get(name, []) for name in ("groups", "scopes")}
    objects = {name: claims.get(name, {}) for name in ("claims", "attributes")}
    source = claims.get("authenticator")
    valid = (
        all(isinstance(each, str) for each in [*texts.values(), source or ""])
        and all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in lists.values())
        and all(isinstance(each, dict) for each in objects.values())
    )
    if not valid or not texts["sub"]:
        raise Refused(UNTRUSTED)
    return SignedIdentity(
        id=texts["sub"],
        username=texts["username"],
        email=texts["email"],
        groups=tuple(lists["groups"]),
        scopes=tuple(lists["scopes"]),
        authenticator=source,
        claims=objects["claims"],
        attributes=objects["attributes"],
        token=claims,
    )


def _settings() -> Signed:
    settings = config().signed
    assert settings is not None, "called in signed mode alone"  # noqa: S101
    return settings
