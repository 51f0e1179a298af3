"""The setting `AUTHGATE`, checked once and typed. `problems` says everything that is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

if TYPE_CHECKING:
    from authgate_django.keys import PublicKey

FIELD_NAME = re.compile(r"[A-Za-z0-9-]+\Z")  # without `_`: the gateway forwards no such field
FACTS = ("username", "email", "groups", "scopes", "authenticator")
# The path of a claim or an attribute, as gateway.toml has it: names with dots between them, special ones in quotes.
MEMBER_NAME = r"""(?:[A-Za-z0-9_:-]+|"(?:[^"\\]|\\["\\])+"|'[^']+')"""
MEMBER = re.compile(rf"(?:claims|attributes)\.{MEMBER_NAME}(?:\.{MEMBER_NAME})*\Z")
KEYS = (
    "SECRET_HEADER",
    "SECRET",
    "USER_ID_HEADER",
    "HEADERS",
    "ENCODING",
    "USERS",
    "USER_LOOKUP",
    "CREATE_USERS",
    "CHALLENGE",
    "REQUIRE_SECRET",
    "IDENTITY",
    "SIGNED_HEADER",
    "JWKS_URL",
    "KEYS",
    "ISSUER",
    "AUDIENCE",
    "REDIS_URL",
    "PREFIX",
    "SEAL",
)
# Settings of signed identity, and those that only plain identity has.
SIGNED = ("SIGNED_HEADER", "JWKS_URL", "KEYS", "ISSUER", "AUDIENCE")
PLAIN = ("USER_ID_HEADER", "HEADERS", "ENCODING", "REQUIRE_SECRET")
SIGNED_HEADER = "X-Authgate-Identity"  # the gateway's default, like the next two
ISSUER = "authgate"
PREFIX = "authgate:"  # the gateway's default
SEAL_BYTES = 32
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True)
class Signed:
    """How signed identities are verified: `keys`, or those at `jwks_url`."""

    audience: str
    header: str = SIGNED_HEADER
    issuer: str = ISSUER
    jwks_url: str | None = None
    keys: tuple[PublicKey, ...] = ()


@dataclass(frozen=True)
class Config:
    """`AUTHGATE` of the settings."""

    # `None`: plain fields are read. Otherwise they are ignored.
    signed: Signed | None = None
    user_id_header: str = "X-User-Id"
    # The other fields of `[identity] headers` in gateway.toml: name of the field -> name of the fact.
    headers: dict[str, str] = field(default_factory=dict)
    encoding: str = "percent"
    secret_header: str | None = None
    # Not empty if `secret_header` is set. Several while the secret is being changed.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    require_secret: bool = True
    users: str = "database"
    user_lookup: str = "pk"
    create_users: bool = False
    challenge: str = "Token"
    # The gateway's store. The URL may have a password.
    redis_url: str | None = field(default=None, repr=False)
    prefix: str = PREFIX
    # What `seal` of the store in gateway.toml names.
    seal: bytes | None = field(default=None, repr=False)


def read(raw: Any) -> tuple[Config, list[str]]:
    """The configuration, and every problem in it."""
    problems: list[str] = []
    if not isinstance(raw, dict):
        return Config(), ["AUTHGATE must be a dict."]
    rest = dict(raw)

    def take(name: str, default: Any, valid: Any, expected: str) -> Any:
        value = rest.pop(name, default)
        if value == default or valid(value):
            return value
        problems.append(f'AUTHGATE["{name}"] must be {expected}.')
        return default

    def is_field(value: Any) -> bool:
        return isinstance(value, str) and FIELD_NAME.match(value) is not None

    def is_fact(value: Any) -> bool:
        return isinstance(value, str) and (value in FACTS or MEMBER.match(value) is not None)

    def is_redis_url(value: Any) -> bool:
        return isinstance(value, str) and value.startswith(REDIS_SCHEMES)

    def is_bool(value: Any) -> bool:
        return isinstance(value, bool)

    is_signed = take("IDENTITY", "plain", lambda value: value == "signed", '"plain" or "signed"') == "signed"
    for name in SIGNED if not is_signed else PLAIN:
        if rest.pop(name, None) is not None:
            other = '"signed"' if not is_signed else '"plain"'
            problems.append(f'AUTHGATE["{name}"] has no effect without "IDENTITY": {other}: remove it.')
    user_id_header = take("USER_ID_HEADER", "X-User-Id", is_field, "the name of a header field, without _")
    headers = take("HEADERS", {}, lambda value: isinstance(value, dict), "a dict: name of a field to name of a fact")
    for name, fact in headers.items():
        if not is_field(name):
            problems.append(f'AUTHGATE["HEADERS"] has {name!r}: write the name of a header field, without _.')
        if not is_fact(fact):
            problems.append(
                f'AUTHGATE["HEADERS"] has {fact!r}: write one of {", ".join(FACTS)}, claims.NAME or attributes.NAME. '
                "Quote a NAME with special characters, as in gateway.toml. "
                "The id has a setting of its own, USER_ID_HEADER."
            )
    for fact, fields in _fields_by_fact(headers).items():
        if len(fields) > 1:
            problems.append(f'AUTHGATE["HEADERS"] reads {fact} from {" and ".join(fields)}: keep one of these fields.')
    encoding = take("ENCODING", "percent", lambda value: value == "utf8", '"percent" or "utf8", as in gateway.toml')
    secret_header = take("SECRET_HEADER", None, is_field, "the name of a header field, without _")
    secret = rest.pop("SECRET", None)
    secrets = (secret,) if isinstance(secret, str) else tuple(secret) if isinstance(secret, (list, tuple)) else ()
    usable = bool(secrets) and all(isinstance(each, str) and each for each in secrets)
    if ("SECRET" in raw or "SECRET_HEADER" in raw) and not (usable and secret_header):
        problems.append('AUTHGATE needs "SECRET_HEADER" and "SECRET", both with a value that is not empty.')
    names = [name.lower() for name in [user_id_header, secret_header, *headers] if isinstance(name, str)]
    if len(set(names)) < len(names):
        problems.append('AUTHGATE has one field name for two things: "USER_ID_HEADER", "SECRET_HEADER" and "HEADERS".')
    users = take(
        "USERS",
        "headers" if is_signed else "database",
        lambda value: value in ("database", "headers"),
        '"database" or "headers"',
    )
    user_lookup = take("USER_LOOKUP", "pk", lambda value: isinstance(value, str) and value, "the name of a field")
    create_users = take("CREATE_USERS", False, is_bool, "True or False")
    if create_users and user_lookup == "pk":
        problems.append('AUTHGATE["CREATE_USERS"] needs "USER_LOOKUP": the field that the gateway\'s id is written to.')
    elif create_users and not is_signed and "username" not in headers.values() and user_lookup != _username_field():
        problems.append(
            f'AUTHGATE["CREATE_USERS"] with "USER_LOOKUP": "{user_lookup}" needs the username of new users: '
            'add a field for username to "HEADERS", and to [identity] headers in gateway.toml.'
        )
    signed = _signed(raw, take, rest, problems) if is_signed else None
    if signed is not None and secret_header is not None and signed.header.lower() == secret_header.lower():
        problems.append('AUTHGATE has one field name for two things: "SIGNED_HEADER" and "SECRET_HEADER".')
    config = Config(
        signed=signed,
        user_id_header=user_id_header,
        headers=headers,
        encoding=encoding,
        secret_header=secret_header,
        secrets=secrets if usable else (),
        require_secret=take("REQUIRE_SECRET", True, is_bool, "True or False"),
        users=users,
        user_lookup=user_lookup,
        create_users=create_users,
        challenge=take("CHALLENGE", "Token", lambda value: isinstance(value, str) and value, "a challenge"),
        redis_url=take(
            "REDIS_URL", None, is_redis_url, "redis://HOST:PORT/DB, rediss:// for TLS, or unix:///FILE?db=0"
        ),
        prefix=take("PREFIX", PREFIX, lambda value: isinstance(value, str), "the `prefix` of [stores.NAME]"),
        seal=take(
            "SEAL",
            None,
            lambda value: isinstance(value, bytes) and len(value) == SEAL_BYTES,
            f"the {SEAL_BYTES} bytes of the file that `seal` of [stores.NAME] names: Path(FILE).read_bytes()",
        ),
    )
    if config.redis_url is not None and find_spec("redis") is None:
        problems.append('AUTHGATE["REDIS_URL"] needs the client library: pip install "authgate-django[redis]".')
    if "PREFIX" in raw and "REDIS_URL" not in raw:
        problems.append('AUTHGATE["PREFIX"] has no effect without "REDIS_URL".')
    if "SEAL" in raw and "REDIS_URL" not in raw:
        problems.append('AUTHGATE["SEAL"] has no effect without "REDIS_URL".')
    for name in rest:
        known = ", ".join(KEYS)
        problems.append(f"AUTHGATE has the unknown key {name!r}: remove it, or write one of {known}.")
    return config, problems


def _signed(raw: dict[str, Any], take: Any, rest: dict[str, Any], problems: list[str]) -> Signed | None:
    """The settings of signed identity; `None` with a problem in them."""
    before = len(problems)

    def is_field(value: Any) -> bool:
        return isinstance(value, str) and FIELD_NAME.match(value) is not None

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and value != ""

    header = take("SIGNED_HEADER", SIGNED_HEADER, is_field, "the name of a header field, without _")
    issuer = take("ISSUER", ISSUER, is_text, "`issuer` of `signed` in gateway.toml")
    audience = take("AUDIENCE", None, is_text, "text")
    if raw.get("AUDIENCE") is None:
        problems.append(
            'AUTHGATE["AUDIENCE"] is missing: write the name of the upstream in gateway.toml, or the `audience` in its '
            "identity table. Otherwise the tokens of other applications would be accepted here."
        )
    url = take(
        "JWKS_URL",
        None,
        _is_jwks_url,
        "https://…, or http://… of this machine, such as http://127.0.0.1:9901/jwks.json",
    )
    keys = rest.pop("KEYS", None)
    if (raw.get("JWKS_URL") is None) == (keys is None):
        problems.append('AUTHGATE needs one of "JWKS_URL" and "KEYS", with the public keys of the gateway.')
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        problems.append('AUTHGATE["IDENTITY"] needs a library: pip install "authgate-django[signed]".')
        return None
    parsed: tuple[PublicKey, ...] = ()
    if keys is not None:
        from authgate_django.keys import parse

        try:
            parsed = parse(keys)
        except ValueError as problem:
            problems.append(f'AUTHGATE["KEYS"]: {problem}. Write a list of public keys in PEM, or a JWK Set.')
    if len(problems) > before:
        return None
    return Signed(audience=audience, header=header, issuer=issuer, jwks_url=url, keys=parsed)


def _is_jwks_url(value: Any) -> bool:
    """A host that can change the answer can sign identities. So the answer is encrypted, or stays on this machine."""
    if not isinstance(value, str):
        return False
    try:
        url = urlsplit(value)
        return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and is_local(url.hostname or "")))
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _fields_by_fact(headers: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, fact in headers.items():
        found.setdefault(str(fact), []).append(str(name))
    return found


def _username_field() -> str | None:
    """`None` if AUTH_USER_MODEL names no model; Django's own checks report that."""
    from django.contrib.auth import get_user_model

    try:
        return get_user_model().USERNAME_FIELD
    except ImproperlyConfigured:
        return None


@lru_cache(maxsize=1)
def config() -> Config:
    """The configuration in force. With a problem in it, no request is served by it."""
    found, problems = read(getattr(settings, "AUTHGATE", {}))
    if problems:
        raise ImproperlyConfigured(" ".join(problems))
    return found


def _changed(*, setting: str, **_: Any) -> None:
    if setting == "AUTHGATE":
        config.cache_clear()


setting_changed.connect(_changed)
