"""How the gateway finds the users of tokens, so that Django finds the same ones by the id that it receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.conf import settings

from authgate_django import conf

RULE = "USER_AUTHENTICATION_RULE"
DEFAULT_RULE = "rest_framework_simplejwt.authentication.default_user_authentication_rule"


@dataclass(frozen=True)
class JwtUsers:
    """`users` and `user_id_field` of the authenticator."""

    stored: bool  # `users = "STORE"`; otherwise the value of the claim is the id
    by_username: bool = False


class Unsupported(Exception):
    """With no keys of gateway.toml does Django find the same users. The text is the reason."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def simple_jwt() -> dict[str, Any]:
    return dict(getattr(settings, "SIMPLE_JWT", None) or {})


def has_own_rule() -> bool:
    rule = simple_jwt().get(RULE, DEFAULT_RULE)
    return rule != (DEFAULT_RULE if isinstance(rule, str) else _default_rule())


def _default_rule() -> Any:
    from rest_framework_simplejwt.authentication import default_user_authentication_rule

    return default_user_authentication_rule


def _column(name: str) -> str:
    """`"pk"` for the primary key, whatever its name is."""
    return "pk" if name == apps.get_model(settings.AUTH_USER_MODEL)._meta.pk.name else name


def require_stored_ids() -> None:
    """Raises `Unsupported` if Django does not look up users by the primary key, which is the id of user records."""
    lookup = conf.config().user_lookup
    if _column(lookup) != "pk":
        reason = f"AUTHGATE USER_LOOKUP is {lookup!r}, and the gateway sends the primary key of a token's user."
        raise Unsupported(reason, "Remove USER_LOOKUP.")


def jwt_users() -> JwtUsers:
    """Raises `Unsupported`. The claim has the value of USER_ID_FIELD, and Django looks up users by USER_LOOKUP."""
    rules, model = simple_jwt(), apps.get_model(settings.AUTH_USER_MODEL)
    field, lookup = _column(rules.get("USER_ID_FIELD", "id")), _column(conf.config().user_lookup)
    checked = bool(rules.get("CHECK_REVOKE_TOKEN"))
    if field == "pk" == lookup:
        return JwtUsers(stored=checked)
    if lookup == "pk" and field == model.USERNAME_FIELD:
        return JwtUsers(stored=True, by_username=True)
    reason = f"SIMPLE_JWT USER_ID_FIELD is {field!r}, and AUTHGATE USER_LOOKUP is {lookup!r}."
    if field != lookup:
        names = " or ".join(dict.fromkeys([repr(model._meta.pk.name), repr(model.USERNAME_FIELD)]))
        remedy = f"Remove USER_LOOKUP and write {names} as USER_ID_FIELD, or write one field in both."
        raise Unsupported(reason, remedy)
    if checked:
        raise Unsupported(
            f"{reason} CHECK_REVOKE_TOKEN needs user records, whose id is the primary key.",
            "Remove USER_LOOKUP, or CHECK_REVOKE_TOKEN.",
        )
    return JwtUsers(stored=False)
