"""The text of gateway.toml, with a comment for each decision and no secret."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings

from authgate_django import conf
from authgate_django.gateway_file.authenticators import Authenticators, Kind, seconds
from authgate_django.gateway_file.jwt_users import jwt_users, simple_jwt
from authgate_django.gateway_file.routes import Place
from authgate_django.gateway_file.views import OPTIONAL, PUBLIC, STAFF, Access

WIDTH = 118
REVOCABLE = "rest_framework_simplejwt.token_blacklist"
CREATION = {
    "EdDSA": "openssl genpkey -algorithm ED25519 -out identity.key",
    "ES256": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out identity.key",
    "RS256": "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out identity.key",
}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    server: str = "http://127.0.0.1:8000"
    store: str = "redis"
    staff_group: str = "staff"


def text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def words(values: Iterable[str]) -> str:
    return "[" + ", ".join(text(value) for value in values) + "]"


def comment(*lines: str) -> list[str]:
    """Comments, of which no line can end early."""
    found = []
    for line in lines:
        if line.startswith("  "):  # a command
            found.append("# " + line)
            continue
        current = "#"
        for word in " ".join(line.split()).split(" "):
            if len(current) + len(word) >= WIDTH:
                found.append(current)
                current = "#  "
            current += " " + word
        found.append(current)
    return found


def render(places: list[Place], authenticators: Authenticators, options: Options) -> str:
    blocks = [
        comment(
            "Written by `manage.py authgate_config` from the settings and the URLconf. Each decision has a comment.",
            "`manage.py authgate_config --diff gateway.toml` fails if a view has no route in it.",
        ),
        _stays(authenticators),
        [
            "[server]",
            'listen = ["127.0.0.1:8443"]             # for other machines: an address of this one, and [server.tls]',
            "# [server.tls]",
            '# certificates = [{ chain = "/etc/authgate/tls.pem", key = "/etc/authgate/tls.key" }]',
        ],
        *_stores(authenticators, options),
        *[_authenticator(kind, name, options) for kind, name in authenticators.names.items()],
        _identity(),
        _upstream(options),
        _key_set(),
        *[_routes(place, options) for place in places],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _stays(authenticators: Authenticators) -> list[str]:
    lines = [
        "What stays in Django:",
        "- views, users, permissions on objects, throttles, and everything that issues tokens",
    ]
    lines += [f"- {name}: {reason}" for name, reason in sorted(authenticators.others.items())]
    rest = getattr(settings, "REST_FRAMEWORK", None) or {}
    if rest.get("DEFAULT_THROTTLE_CLASSES"):
        lines.append("- throttles count clients by X-Forwarded-For; if NUM_PROXIES is set, count the gateway")
    if "corsheaders.middleware.CorsMiddleware" in settings.MIDDLEWARE and _cors() is None:
        lines.append("- CORS: its settings cannot be written as a list of origins, so each route needs `cors` by hand")
    if REVOCABLE in settings.INSTALLED_APPS:
        lines.append(
            "- SimpleJWT's blacklist ends refresh tokens. `authgate revoke --jti` ends access tokens at the gateway"
        )
    engine = settings.DATABASES.get("default", {}).get("ENGINE", "none").rsplit(".", 1)[-1]
    lines.append(f"- the database ({engine}): the gateway reads a store of its own, see below")
    return comment(*lines)


def _needs_store(authenticators: Authenticators) -> bool:
    kinds = {kind.kind for kind in authenticators.names}
    if kinds == {"jwt"}:
        return REVOCABLE in settings.INSTALLED_APPS or jwt_users().stored
    return bool(kinds)


def _stores(authenticators: Authenticators, options: Options) -> list[list[str]]:
    if not _needs_store(authenticators):
        return []
    kinds = {kind.kind for kind in authenticators.names}
    user = settings.AUTH_USER_MODEL.lower()
    models = [user, "auth.group"]
    models += ["authtoken.token"] if "token" in kinds else []
    models += ["knox.authtoken"] if "knox" in kinds else []
    flags = [] if user == "auth.user" else [f"--user-model {user}"]
    field = apps.get_model(settings.AUTH_USER_MODEL).USERNAME_FIELD
    flags += [] if field == "username" else [f"--username-field {field}"]
    name = "redis" if options.store == "redis" else "file"
    config = conf.config()
    if config.redis_url is not None:
        lines = comment(
            "Signals of authgate-django write each change here. First, and on a schedule:",
            "    python manage.py authgate_sync",
        )
    else:
        lines = comment(
            "Tokens and users of Django's database have to be imported, and again when they change:",
            f"    python manage.py dumpdata {' '.join(models)} | authgate token import {' '.join([*flags, '-'])}",
        )
    lines.append(f"[stores.{name}]")
    if name == "redis":
        lines += ['kind = "redis"', 'url = "redis://127.0.0.1:6379/0"']
        lines += [f"prefix = {text(config.prefix)}"] if config.prefix != conf.PREFIX else []
        if config.seal is not None:
            lines.append('seal = { file = "seal.key" }'.ljust(40) + "# the bytes of SEAL")
    else:
        lines += ['kind = "embedded"', 'file = "tokens.toml"']
    if "knox" in kinds:
        lines.append(
            f"digest = {words(_digests())}".ljust(40) + "# how knox computes digests; sha256 for tokens of authgate"
        )
    return [lines]


def _digests() -> list[str]:
    try:
        from importlib.metadata import version

        major = int(version("django-rest-knox").split(".")[0])
    except Exception:  # not installed as a package
        major = 5
    return ["sha256", "sha512" if major >= 5 else "sha512-hexkey"]


def _authenticator(kind: Kind, name: str, options: Options) -> list[str]:
    store = "redis" if options.store == "redis" else "file"
    scheme = text(kind.scheme[0]) if len(kind.scheme) == 1 else words(kind.scheme)
    lines = [f"[authenticators.{name}]"]
    if kind.kind != "jwt":
        source = "knox" if kind.kind == "knox" else "rest_framework.authtoken"
        return [
            *comment(f"{source}: opaque tokens"),
            *lines,
            'kind = "token"',
            f"scheme = {scheme}",
            f'store = "{store}"',
        ]
    return [*comment("rest_framework_simplejwt"), *lines, 'kind = "jwt"', f"scheme = {scheme}", *_jwt(store)]


def _jwt(store: str) -> list[str]:
    rules = simple_jwt()
    algorithm = rules.get("ALGORITHM", "HS256")
    lines: list[str] = []
    header = rules.get("AUTH_HEADER_NAME", "HTTP_AUTHORIZATION")
    if header != "HTTP_AUTHORIZATION":
        lines.append(f"header = {text(header.removeprefix('HTTP_').replace('_', '-').title())}")
    if rules.get("JWK_URL"):
        lines += comment(
            "JWK_URL: fetch it into this file. The gateway reads the file again when it changes "
            f"(`server.watch`): {_without_user(rules['JWK_URL'])}"
        )
        lines += ['jwks = { file = "jwks.json" }', f"algorithms = {words([algorithm])}"]
    elif algorithm.startswith("HS"):
        lines += comment(
            "SIMPLE_JWT SIGNING_KEY, byte for byte; its default is SECRET_KEY, and a key of its own is better"
        )
        lines.append(f'keys = [{{ algorithm = {text(algorithm)}, secret = {{ env = "AUTHGATE_JWT_SECRET" }} }}]')
    else:
        lines += comment("SIMPLE_JWT VERIFYING_KEY in a file; it is the public key")
        lines.append(f'keys = [{{ algorithm = {text(algorithm)}, file = "jwt.pub.pem" }}]')
    for setting, key in [("ISSUER", "issuer"), ("AUDIENCE", "audience")]:
        value = rules.get(setting)
        if value:
            lines.append(f"{key} = {text(value) if isinstance(value, str) else words(value)}")
    leeway = seconds(rules.get("LEEWAY", 0))
    if leeway:
        lines.append(f"leeway = {text(leeway)}")
    defaults = {"USER_ID_CLAIM": "user_id", "TOKEN_TYPE_CLAIM": "token_type", "JTI_CLAIM": "jti"}
    for setting, default in defaults.items():
        value = rules.get(setting, default)
        if value != default:
            lines.append(f"{setting.lower()} = {'false' if value is None else text(value)}")
    types = [str(each).rsplit(".", 1)[-1] for each in rules.get("AUTH_TOKEN_CLASSES", [])]
    if any(each == "SlidingToken" for each in types):
        lines.append(f"token_types = {words(each.removesuffix('Token').lower() for each in types)}")
    lines += _jwt_users(rules, store)
    if REVOCABLE in settings.INSTALLED_APPS:
        lines.append(f'revocation = "{store}"')
    return lines


def _jwt_users(rules: dict[str, Any], store: str) -> list[str]:
    users = jwt_users()
    if not users.stored:
        return [
            *comment(
                "none: the id comes from the claim, and Django looks up the user. "
                "With a store, the gateway looks it up as well"
            ),
            'users = "none"',
        ]
    lines = [f'users = "{store}"']
    if users.by_username:
        lines = comment("USER_ID_FIELD: the claim has the username; the gateway finds the user, and sends the id")
        lines += [f'users = "{store}"', 'user_id_field = "username"']
    if not rules.get("CHECK_USER_IS_ACTIVE", True):
        lines.append("check_user_is_active = false")
    if rules.get("CHECK_REVOKE_TOKEN"):
        lines.append("check_revoke_token = true")
        claim = rules.get("REVOKE_TOKEN_CLAIM", "hash_password")
        lines += [f"revoke_token_claim = {text(claim)}"] if claim != "hash_password" else []
    return lines


def _without_user(url: str) -> str:
    scheme, _, rest = str(url).partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}".split("?", 1)[0]


def _identity() -> list[str]:
    config, moved = conf.config(), hasattr(settings, "AUTHGATE")
    if config.signed is not None:
        return _signed(config.signed)
    headers = {config.user_id_header: "id", **(config.headers if moved else {"X-Auth-Source": "authenticator"})}
    listed = ", ".join(f"{name} = {text(fact)}" for name, fact in headers.items())
    lines = comment("AUTHGATE in the settings reads these") if moved else []
    lines += ["[identity]", f"headers = {{ {listed} }}"]
    if config.encoding != "percent":
        lines.append(f"encoding = {text(config.encoding)}")
    return [*lines, 'credential = "keep"'.ljust(40) + "# until Django uses GatewayAuthentication; then remove the line"]


def _signed(signed: conf.Signed) -> list[str]:
    named = [
        f"{name} = {text(value)}, "
        for name, value, default in (
            ("header", signed.header, conf.SIGNED_HEADER),
            ("issuer", signed.issuer, conf.ISSUER),
        )
        if value != default
    ]
    algorithm = signed.keys[0].algorithm if signed.keys else "EdDSA"
    return [
        *comment(
            "AUTHGATE in the settings verifies a signed identity. Its private key is a file beside this one:",
            f"  {CREATION[algorithm]}",
        ),
        "[identity]",
        "headers = {}".ljust(40) + "# Django reads the token alone",
        f'signed = {{ {"".join(named)}keys = [{{ algorithm = {text(algorithm)}, file = "identity.key" }}] }}',
        'credential = "keep"'.ljust(40) + "# until Django uses GatewayAuthentication; then remove the line",
    ]


def _key_set() -> list[str]:
    """The route of `JWKS_URL`, unless that is the admin listener on this machine."""
    signed = conf.config().signed
    url = urlsplit(signed.jwks_url) if signed is not None and signed.jwks_url is not None else None
    if url is None or conf.is_local(url.hostname or ""):
        return []
    return [
        *comment("JWKS_URL of AUTHGATE: the gateway answers with its public keys"),
        "[[routes]]",
        f"path = {text(url.path or '/')}",
        "public = true",
        "jwks = true",
    ]


def _upstream(options: Options) -> list[str]:
    config = conf.config()
    lines = ["[upstreams.app]", f"servers = [{text(options.server)}]"]
    if config.signed is None or config.secret_header is not None:
        name = config.secret_header or "X-Gateway-Secret"
        value = f'{{ name = {text(name)}, value = {{ env = "GATEWAY_SECRET" }} }}'
        lines.append(f"secret_header = {value} # SECRET of AUTHGATE")
    if config.signed is not None and config.signed.audience != "app":
        lines.append(f"identity = {{ audience = {text(config.signed.audience)} }} # AUDIENCE of AUTHGATE")
    return lines


def _cors() -> str | None:
    """`cors` of django-cors-headers' settings; `None` if they have no list of origins."""
    if "corsheaders.middleware.CorsMiddleware" not in settings.MIDDLEWARE:
        return None
    credentials = bool(getattr(settings, "CORS_ALLOW_CREDENTIALS", False))
    origins = list(getattr(settings, "CORS_ALLOWED_ORIGINS", []))
    if getattr(settings, "CORS_ALLOW_ALL_ORIGINS", False):
        if credentials:
            return None
        origins = ["*"]
    if not origins or getattr(settings, "CORS_ALLOWED_ORIGIN_REGEXES", []):
        return None
    return f"cors = {{ origins = {words(origins)}, credentials = {'true' if credentials else 'false'} }}"


def _routes(place: Place, options: Options) -> list[str]:
    names = place.names
    shown = names[:6] + ([f"and {len(names) - 6} more"] if len(names) > 6 else [])
    blocks = []
    for at, (methods, access) in enumerate(place.groups()):
        lines = comment(", ".join(shown), *place.remarks()) if at == 0 else []
        lines += comment("; ".join(sorted(access.why))) if access.why else []
        lines += ["[[routes]]", f"path = {text(place.path)}"]
        if methods is not None:
            lines.append(f"methods = {words(methods)}")
        blocks.append("\n".join([*lines, *_policy(access, options), 'upstream = "app"']))
    return ["\n\n".join(blocks)]


def _policy(access: Access, options: Options) -> list[str]:
    if access.strength == PUBLIC:
        return ["public = true"]
    lines = [f"authenticate = {words(access.authenticators)}"]
    if access.strength == OPTIONAL:
        lines.append("optional = true")
    if access.strength == STAFF and options.staff_group:
        lines += comment("The gateway does not know is_staff: put the staff into this group, or remove the line")
        lines.append(f"require = {{ groups = {{ any = {words([options.staff_group])} }} }}")
    if not access.challenge:
        lines.append('challenge = "none"'.ljust(40) + "# the first class has no challenge: 403 in place of 401")
    if access.keep:
        lines.append('credential = "keep"'.ljust(40) + "# a class that stays in Django reads it")
    cors = _cors()
    return [*lines, cors] if cors else lines
