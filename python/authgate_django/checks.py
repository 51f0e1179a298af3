"""System checks: what `manage.py check` says of a project behind the gateway."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from authgate_django import conf

REMOTE_USER = {
    "MIDDLEWARE": "django.contrib.auth.middleware.RemoteUserMiddleware",
    "AUTHENTICATION_BACKENDS": "django.contrib.auth.backends.RemoteUserBackend",
}
SHORT = 16  # characters; a shorter secret can be guessed


def _is(path: str, base: str) -> bool:
    """Whether the setting names this class or one that is made of it."""
    if path == base:
        return True
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django's own checks say so
    return isinstance(found, type) and issubclass(found, import_string(base))


@register(Tags.security)
def check_trust(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether identity fields are taken from the gateway alone."""
    config, problems = conf.read(getattr(settings, "AUTHGATE", {}))
    found: list[CheckMessage] = [Error(problem, id="authgate.E001") for problem in problems]
    # A signed identity proves by itself that it is the gateway's.
    if config.secret_header is None and config.signed is None and not problems:
        if config.require_secret:
            found.append(
                Warning(
                    "AUTHGATE has no shared secret, so every request with identity fields is refused.",
                    hint="Set SECRET_HEADER and SECRET as `secret_header` of the upstream in gateway.toml. Without a "
                    "secret, a client that reaches the application around the gateway could be any user.",
                    id="authgate.W001",
                )
            )
        else:
            found.append(
                Warning(
                    "REQUIRE_SECRET is False: a client that reaches the application around the gateway can be anyone.",
                    hint="Set SECRET_HEADER and SECRET, and remove REQUIRE_SECRET.",
                    id="authgate.W003",
                )
            )
    elif config.secret_header is not None and not config.require_secret:
        found.append(
            Warning("REQUIRE_SECRET has no effect beside SECRET.", hint="Remove it.", id="authgate.W006"),
        )
    if any(len(secret) < SHORT for secret in config.secrets):
        found.append(
            Warning(
                f"SECRET has fewer than {SHORT} characters and can be guessed.",
                hint="`openssl rand -hex 32` prints a good one.",
                id="authgate.W004",
            )
        )
    return found


@register(Tags.security)
def check_user_lookup(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether `USER_LOOKUP` can name one user only."""
    config, problems = conf.read(getattr(settings, "AUTHGATE", {}))
    if problems or config.user_lookup == "pk":
        return []
    try:
        model = get_user_model()
    except ImproperlyConfigured:
        return []  # Django's own checks say so
    lookup = f'AUTHGATE["USER_LOOKUP"] is {config.user_lookup!r}'
    columns = {field.name: field for field in model._meta.concrete_fields}
    if config.user_lookup not in columns:
        return [
            Error(
                f"{lookup}, which is no field of {model._meta.label}.",
                hint=f"Write one of {', '.join(name for name in columns if name != 'password')}.",
                id="authgate.E002",
            )
        ]
    alone = [constraint.fields for constraint in model._meta.total_unique_constraints]
    if columns[config.user_lookup].unique or (config.user_lookup,) in alone:
        return []
    return [
        Error(
            f"{lookup}, which is not unique in {model._meta.label}: an id that two users have is refused.",
            hint="Make the field unique, or look up users by another field.",
            id="authgate.E002",
        )
    ]


@register(Tags.security)
def check_remote_user(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """RemoteUserMiddleware trusts another field, starts sessions and creates users."""
    names = [
        path
        for setting, base in REMOTE_USER.items()
        for path in getattr(settings, setting, None) or []
        if isinstance(path, str) and _is(path, base)
    ]
    classes = (getattr(settings, "REST_FRAMEWORK", None) or {}).get("DEFAULT_AUTHENTICATION_CLASSES", [])
    names += [path for path in classes if str(path).endswith("RemoteUserAuthentication")]
    return [
        Warning(
            f"{name} is on: it trusts REMOTE_USER, starts a session and creates unknown users.",
            hint="Use authgate_django.middleware.GatewayMiddleware or authgate_django.authentication."
            "GatewayAuthentication in its place.",
            id="authgate.W002",
        )
        for name in names
    ]


@register()
def check_order(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """AuthenticationMiddleware overwrites `request.user`."""
    order = list(settings.MIDDLEWARE)
    ours, theirs = (
        "authgate_django.middleware.GatewayMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    )
    if ours in order and theirs in order and order.index(ours) < order.index(theirs):
        return [
            Warning(
                "GatewayMiddleware is before AuthenticationMiddleware, which overwrites its user.",
                hint="Move GatewayMiddleware behind it.",
                id="authgate.W005",
            )
        ]
    return []
