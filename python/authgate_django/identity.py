"""Who the gateway has authenticated: from the plain header fields, or from a signed identity."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote_to_bytes

from authgate_django.conf import config
from authgate_django.fields import Fields, Identity, Refused, Unavailable, came_through_the_gateway

__all__ = ["Fields", "Identity", "Refused", "Unavailable", "came_through_the_gateway", "decode", "identity", "waits"]

log = logging.getLogger("authgate_django")

# What the gateway sends as `authenticator` where it has accepted no credential; `unknown`: the application judges it
# (`on_unknown = "forward"`). No authenticator can have these names.
NO_CREDENTIAL = ("anonymous", "public", "unknown")


def waits(fields: Fields) -> bool:
    """Whether `identity` may wait for the network. An event loop must not."""
    if config().signed is None:
        return False
    from authgate_django.signed import waits_for_keys

    return waits_for_keys(fields)


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
