"""Signed identity: which tokens are trusted, where their keys come from, and that requests make no query or fetch."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from conftest import wait_until
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client
from rest_framework.test import APIRequestFactory

from authgate_django import conf, jwks
from authgate_django.authentication import GatewayAuthentication
from authgate_django.checks import check_trust
from authgate_django.identity import Fields, Refused, Unavailable, identity, waits

TYP = "authgate-identity+jwt"
PAGES = ["/whoami", "/page"]
UNTRUSTED = {"detail": "The request did not come through the gateway."}


class Key:
    def __init__(self, algorithm="EdDSA", kid="one"):
        makers = {
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
        }
        self.algorithm, self.kid, self.private = algorithm, kid, makers[algorithm]()
        public = self.private.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        kinds = {"EdDSA": jwt.algorithms.OKPAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}
        to_jwk = kinds.get(algorithm, jwt.algorithms.RSAAlgorithm).to_jwk
        self.jwk = {**to_jwk(public, as_dict=True), "kid": kid, "alg": algorithm, "use": "sig"}
        self.jwk.pop("key_ops", None)

    def private_pem(self):
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def sign(self, claims=None, **header):
        header = {"typ": TYP, "kid": self.kid, **header}
        return jwt.encode(claims or claims_of(), self.private, self.algorithm, headers=header)


def claims_of(**more):
    """What the gateway writes; `None` leaves a claim out."""
    now = int(time.time())
    claims = {
        "iss": "authgate",
        "aud": "app",
        "sub": "42",
        "iat": now,
        "exp": now + 60,
        "username": "ada",
        "groups": ["staff", "a,b"],
        "scopes": ["orders:read"],
        "authenticator": "token",
        "attributes": {"tenant": {"name": "acme"}},
        **more,
    }
    return {name: value for name, value in claims.items() if value is not None}


KEY, OTHER = Key(), Key()  # with the same key id


@pytest.fixture(autouse=True)
def signed(settings):
    settings.AUTHGATE = {"IDENTITY": "signed", "AUDIENCE": "app", "KEYS": {"keys": [KEY.jwk]}}
    jwks.key_set.cache_clear()
    return settings


def get(target, token=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client().get(target, headers={**headers, **({} if token is None else {"X-Authgate-Identity": token})})


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_token_of_the_gateway_is_accepted_without_a_query(settings, db, django_assert_num_queries, algorithm):
    key = Key(algorithm)
    for keys in [[key.pem], key.pem, {"keys": [key.jwk]}, [OTHER.jwk, key.jwk]]:
        settings.AUTHGATE = {**settings.AUTHGATE, "KEYS": keys}
        for target in PAGES:
            with django_assert_num_queries(0):
                assert get(target, key.sign()).json()["user"] == "ada", target


def test_request_auth_is_the_claims_of_the_token_and_the_facts():
    request = APIRequestFactory().get("/", headers={"X-Authgate-Identity": KEY.sign(claims_of(email="ada@x"))})
    user, auth = GatewayAuthentication().authenticate(request)
    assert (user.pk, user.username, user.email, user.groups) == ("42", "ada", "ada@x", ("staff", "a,b"))
    assert user.is_authenticated and user.is_active and not user.is_staff
    assert (auth["sub"], auth["aud"], auth.get("nothing")) == ("42", "app", None)
    assert auth["attributes"]["tenant"] == auth.attributes["tenant"] == {"name": "acme"}
    assert dict(auth) == auth and set(auth) >= {"iss", "sub", "aud", "iat", "exp"}
    assert auth.has_scope("orders:read") and auth.authenticator == "token"


def test_the_row_is_read_only_where_the_settings_or_the_view_ask_for_it(db, settings, django_assert_num_queries):
    ada = get_user_model().objects.create(pk=42, username="lovelace", password="!")
    user, _ = GatewayAuthentication().authenticate(
        APIRequestFactory().get("/", headers={"X-Authgate-Identity": KEY.sign()})
    )
    with django_assert_num_queries(1):
        assert user.database_user == ada
    settings.AUTHGATE = {**settings.AUTHGATE, "USERS": "database"}
    with django_assert_num_queries(1):
        assert get("/page", KEY.sign()).json()["user"] == "lovelace"
    ada.delete()
    assert get("/whoami", KEY.sign()).status_code == 401


def test_a_token_is_verified_once_and_its_expiry_and_key_each_time(settings, monkeypatch):
    decoded = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *words, **named: decoded.append(1) or decode(*words, **named))
    token = KEY.sign()
    fields = Fields({"HTTP_X_AUTHGATE_IDENTITY": token})
    for _ in range(5):
        found = identity(fields)
        assert found["groups"] == ["staff", "a,b"]
        found["groups"].append("changed by a view")
    assert len(decoded) == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert identity(fields).id == "42"
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with pytest.raises(Refused):
        identity(fields)
    monkeypatch.setattr(time, "time", lambda: now)
    for more in [{"KEYS": [OTHER.pem]}, {"AUDIENCE": "other"}, {"ISSUER": "other"}]:
        settings.AUTHGATE = {**settings.AUTHGATE, **more}
        with pytest.raises(Refused):
            identity(fields)
        settings.AUTHGATE = {"IDENTITY": "signed", "AUDIENCE": "app", "KEYS": {"keys": [KEY.jwk]}}
        assert identity(fields).id == "42"


@pytest.mark.parametrize("target", PAGES)
def test_plain_fields_are_ignored(target):
    plain = {"x_user_id": "1", "x_user_name": "root", "x_auth_source": "token", "x_gateway_secret": "x"}
    assert get(target, **plain).json()["user"] == "AnonymousUser"
    assert get(target, KEY.sign(), **plain).json()["user"] == "ada"


def b64(value):
    encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()


def by_hand(header, sign, claims=None):
    message = f"{b64({'typ': TYP, 'kid': 'one', **header})}.{b64(claims or claims_of())}"
    return f"{message}.{b64(sign(message.encode()))}"


def hs256(secret):
    return lambda message: hmac.new(secret, message, hashlib.sha256).digest()


PUBLIC = KEY.pem.encode()
RAW = KEY.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
GOOD = KEY.sign()
HEAD, BODY, SIGNATURE = GOOD.split(".")
FORGED = {
    "alg none": by_hand({"alg": "none"}, lambda message: b""),
    "alg None": by_hand({"alg": "None"}, lambda message: b""),
    "no alg": by_hand({}, KEY.private.sign),
    "HS256 with the public key in PEM": by_hand({"alg": "HS256"}, hs256(PUBLIC)),
    "HS256 with the bytes of the public key": by_hand({"alg": "HS256"}, hs256(RAW)),
    "HS256 with an empty secret": by_hand({"alg": "HS256"}, hs256(b"")),
    "ES256 for an Ed25519 key": by_hand({"alg": "ES256"}, KEY.private.sign),
    "another key with the same id": OTHER.sign(),
    "another key id": KEY.sign(kid="two"),
    "no key id": by_hand({"alg": "EdDSA", "kid": None}, KEY.private.sign),
    "a key id that is no text": by_hand({"alg": "EdDSA", "kid": 1}, KEY.private.sign),
    "typ JWT": KEY.sign(typ="JWT"),
    "typ of an access token": KEY.sign(typ="at+jwt"),
    "no typ": by_hand({"alg": "EdDSA", "typ": None}, KEY.private.sign),
    "a critical extension": by_hand({"alg": "EdDSA", "crit": ["x"], "x": 1}, KEY.private.sign),
    "a key in the header": by_hand({"alg": "EdDSA", "jwk": OTHER.jwk}, OTHER.private.sign),
    "no signature": f"{HEAD}.{BODY}.",
    "two parts": f"{HEAD}.{BODY}",
    "other claims under the signature": f"{HEAD}.{b64(claims_of(sub='1'))}.{SIGNATURE}",
    "another audience": KEY.sign(claims_of(aud="other")),
    "the audience among others": KEY.sign(claims_of(aud=["app", "other"])),
    "no audience": KEY.sign(claims_of(aud=None)),
    "another issuer": KEY.sign(claims_of(iss="other")),
    "no issuer": KEY.sign(claims_of(iss=None)),
    "expired": KEY.sign(claims_of(exp=int(time.time()) - 1)),
    "no expiry": KEY.sign(claims_of(exp=None)),
    "an expiry that is no number": KEY.sign(claims_of(exp="never")),
    "an expiry in quotes": KEY.sign(claims_of(exp=str(int(time.time()) + 60))),
    "from the future": KEY.sign(claims_of(iat=int(time.time()) + 3600, exp=int(time.time()) + 7200)),
    "no time of signing": KEY.sign(claims_of(iat=None)),
    "a time of signing that is no number": KEY.sign(claims_of(iat="now")),
    "not valid yet": KEY.sign(claims_of(nbf=int(time.time()) + 3600)),
    "no user": KEY.sign(claims_of(sub=None)),
    "an empty user": KEY.sign(claims_of(sub="")),
    "a user that is no text": by_hand({"alg": "EdDSA"}, KEY.private.sign, {**claims_of(), "sub": 42}),
    "groups that are no list": KEY.sign(claims_of(groups="staff")),
    "groups that are no texts": KEY.sign(claims_of(groups=[1])),
    "two tokens": f"{GOOD},{GOOD}",
    "a token and more": f"{GOOD} x",
    "no token": "x",
    "empty": "",
    "beyond ASCII": "\xe9.\xff.\xe9",
    "a JWE": f"{HEAD}.{BODY}.{SIGNATURE}.x.y",
}


@pytest.mark.parametrize("target", PAGES)
@pytest.mark.parametrize("keys", ["jwk", "pem"])
@pytest.mark.parametrize("forgery", FORGED)
def test_a_token_that_is_not_exactly_the_gateways_is_refused(settings, target, keys, forgery):
    if keys == "pem":
        if forgery == "another key id":
            return  # a key in PEM has no id
        settings.AUTHGATE = {**settings.AUTHGATE, "KEYS": [KEY.pem]}
    reply = get(target, FORGED[forgery])
    assert (reply.status_code, reply.json()) == (401, UNTRUSTED), forgery
    assert reply.headers["WWW-Authenticate"] == "Token"


def test_a_repeated_header_is_refused_and_one_with_an_underscore_is_not_the_gateways():
    line = (b"x-authgate-identity", KEY.sign().encode())
    assert identity(Fields({}, [line])).id == "42"
    assert identity(Fields({}, [(b"x_authgate_identity", line[1])])) is None
    with pytest.raises(Refused, match="did not come through the gateway"):
        identity(Fields({}, [line, line]))


def test_the_secret_is_compared_too_where_the_settings_have_one(settings):
    settings.AUTHGATE = {**settings.AUTHGATE, "SECRET_HEADER": "X-Gateway-Secret", "SECRET": "canary-0123456789abc"}
    assert get("/whoami", KEY.sign()).status_code == 401
    assert get("/whoami", KEY.sign(), x_gateway_secret="canary-0123456789abc").json()["user"] == "ada"


def test_the_names_of_header_and_issuer_can_be_set(settings):
    settings.AUTHGATE = {**settings.AUTHGATE, "SIGNED_HEADER": "X-Who", "ISSUER": "edge"}
    token = KEY.sign(claims_of(iss="edge"))
    assert get("/whoami", x_who=token).json()["user"] == "ada"
    assert get("/whoami", token).json()["user"] == "AnonymousUser"
    assert get("/whoami", x_who=KEY.sign()).status_code == 401


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"AUDIENCE": None}, "AUDIENCE"),
        ({"AUDIENCE": ""}, "AUDIENCE"),
        ({"AUDIENCE": ["app"]}, "AUDIENCE"),
        ({"KEYS": None}, 'one of "JWKS_URL" and "KEYS"'),
        ({"JWKS_URL": "https://gate.example/jwks.json"}, 'one of "JWKS_URL" and "KEYS"'),
        ({"KEYS": []}, "there is no key"),
        ({"KEYS": ["x"]}, "-----BEGIN PUBLIC KEY-----"),
        ({"KEYS": [42]}, "neither text in PEM nor a JWK"),
        ({"KEYS": [KEY.private_pem()]}, "a private key belongs to the gateway alone"),
        ({"KEYS": [{**KEY.jwk, "d": "x"}]}, "a JWK is private"),
        ({"KEYS": [{"kty": "oct", "k": "eA", "kid": "one"}]}, "'oct'"),
        ({"KEYS": [{**KEY.jwk, "alg": "ES256"}]}, "another algorithm"),
        ({"KEYS": [{**KEY.jwk, "use": "enc"}]}, "not for signatures"),
        ({"KEYS": None, "JWKS_URL": "http://gate.example/jwks.json"}, "https://"),
        ({"KEYS": None, "JWKS_URL": "file:///etc/passwd"}, "https://"),
        ({"KEYS": None, "JWKS_URL": "https:///jwks.json"}, "https://"),
        ({"SIGNED_HEADER": "X_Identity"}, "SIGNED_HEADER"),
        ({"ISSUER": ""}, "ISSUER"),
        ({"HEADERS": {"X-User-Groups": "groups"}}, '"HEADERS"] has no effect'),
        ({"USER_ID_HEADER": "X-User-Id"}, '"USER_ID_HEADER"] has no effect'),
        ({"REQUIRE_SECRET": True}, '"REQUIRE_SECRET"] has no effect'),
        ({"USERS": "token"}, "USERS"),
    ],
)
def test_settings_that_are_unsafe_or_wrong_are_named(settings, more, words):
    settings.AUTHGATE = {**settings.AUTHGATE, **more}
    messages = check_trust()
    assert len(messages) == 1 and messages[0].id == "authgate.E001" and words in str(messages[0]), messages
    with pytest.raises(ImproperlyConfigured):
        conf.config()


def test_without_a_secret_nothing_is_warned_of():
    assert check_trust() == []


class Publisher:
    """Serves a JWK Set, and counts how often it is read."""

    def __init__(self, keys):
        self.body, self.status, self.headers, self.reads = json.dumps({"keys": keys}).encode(), 200, {}, 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.reads += 1
                self.send_response(publisher.status)
                for name, value in publisher.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(publisher.body)))
                self.end_headers()
                self.wfile.write(publisher.body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, *keys):
        self.body = json.dumps({"keys": [key.jwk for key in keys]}).encode()


@pytest.fixture
def publisher(settings):
    made = Publisher([KEY.jwk])
    settings.AUTHGATE = {"IDENTITY": "signed", "AUDIENCE": "app", "JWKS_URL": made.url}
    yield made
    made.server.shutdown()
    made.server.server_close()


def later(publisher, seconds):
    """The same as waiting so long."""
    keys = jwks.key_set(publisher.url)
    keys._fetched -= seconds
    keys._attempted -= seconds


def test_keys_are_read_once_for_many_requests(publisher):
    for _ in range(20):
        assert get("/whoami", KEY.sign()).json()["user"] == "ada"
    assert publisher.reads == 1


def test_an_unknown_key_is_read_once_and_then_not_before_the_cooldown(publisher):
    new = Key(kid="new")
    assert get("/whoami", KEY.sign()).status_code == 200
    publisher.publish(KEY, new)
    for _ in range(20):
        assert get("/whoami", new.sign()).status_code == 401
    assert publisher.reads == 1, "the first read was a moment ago"
    later(publisher, jwks.COOLDOWN)
    for _ in range(20):
        assert get("/whoami", new.sign()).json()["user"] == "ada"
        assert get("/whoami", KEY.sign()).json()["user"] == "ada"
        assert get("/whoami", Key(kid="forged").sign()).status_code == 401
    assert publisher.reads == 2


def test_concurrent_requests_read_unknown_keys_once(publisher):
    found = []
    threads = [threading.Thread(target=lambda: found.append(get("/whoami", KEY.sign()).status_code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, publisher.reads) == ([200] * 8, 1)


def test_old_keys_are_refreshed_in_the_background_and_a_removed_one_ends(publisher):
    assert get("/whoami", KEY.sign()).status_code == 200
    new = Key(kid="new")
    publisher.publish(new)
    later(publisher, jwks.REFRESH)
    get("/whoami", KEY.sign())
    wait_until("the keys are refreshed", lambda: jwks.key_set(publisher.url).is_known("new"))
    assert get("/whoami", new.sign()).status_code == 200
    assert get("/whoami", KEY.sign()).status_code == 401
    assert publisher.reads == 2


def failures(publisher):
    """Ways in which the keys cannot be read."""
    elsewhere = Publisher([OTHER.jwk])
    yield "an error", {"status": 500}
    yield "a redirect", {"status": 302, "headers": {"Location": elsewhere.url}}
    yield "no JSON", {"body": b"x"}
    yield "no set", {"body": b"[]"}
    yield "no keys", {"body": b'{"keys": []}'}
    yield "no usable key", {"body": json.dumps({"keys": [{**KEY.jwk, "kid": None}, {"kty": "oct"}, 1]}).encode()}
    yield "too long", {"body": json.dumps({"keys": [KEY.jwk], "x": "x" * jwks.MAX_BYTES}).encode()}
    assert elsewhere.reads == 0
    elsewhere.server.shutdown()
    elsewhere.server.server_close()


def test_known_keys_outlive_an_outage_and_unknown_ones_are_503(publisher):
    good = publisher.body
    for what, change in failures(publisher):
        jwks.key_set.cache_clear()
        publisher.body, publisher.status, publisher.headers = good, 200, {}
        assert get("/whoami", KEY.sign()).status_code == 200
        for name, value in change.items():
            setattr(publisher, name, value)
        before = publisher.reads
        later(publisher, jwks.REFRESH)
        assert get("/whoami", KEY.sign()).status_code == 200, what
        wait_until("the refresh has failed", lambda: jwks.key_set(publisher.url)._failed)
        for target in PAGES:
            assert get(target, KEY.sign()).status_code == 200, what
            reply = get(target, OTHER.sign(kid="unknown"))
            assert (reply.status_code, reply.headers.get("WWW-Authenticate")) == (503, None), what
        assert publisher.reads == before + 1, what
        later(publisher, jwks.MAX_STALE)
        assert get("/whoami", KEY.sign()).status_code == 503, "too old"
        publisher.body, publisher.status, publisher.headers = good, 200, {}
        later(publisher, jwks.COOLDOWN)
        assert get("/whoami", KEY.sign()).status_code == 200, "it recovers by itself"


def test_without_keys_requests_are_503_and_anonymous_ones_are_served(settings):
    listener = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = listener.server_address[1]
    listener.server_close()  # nobody listens now
    settings.AUTHGATE = {"IDENTITY": "signed", "AUDIENCE": "app", "JWKS_URL": f"http://127.0.0.1:{port}/jwks.json"}
    for target in PAGES:
        assert get(target, KEY.sign()).status_code == 503
        assert get(target).json()["user"] == "AnonymousUser"
        assert get(target, KEY.sign(typ="JWT")).status_code == 401, "it needs no key"


def test_a_forked_process_can_fetch_while_its_parent_was_fetching(publisher):
    keys = jwks.key_set(publisher.url)
    with keys._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if keys.find("one") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.django_db(transaction=True)
def test_an_event_loop_never_waits_for_keys(publisher, monkeypatch):
    threads = []
    read = jwks.KeySet._read
    monkeypatch.setattr(jwks.KeySet, "_read", lambda self: threads.append(threading.get_ident()) or read(self))

    async def call():
        return threading.get_ident(), await AsyncClient().get("/async", headers={"X-Authgate-Identity": KEY.sign()})

    fields = Fields({}, [(b"x-authgate-identity", KEY.sign().encode())])
    assert waits(fields)
    loop, reply = asyncio.run(call())
    assert reply.json() == {"user": "ada"} and threads and loop not in threads
    assert not waits(fields)
    for value in [b"x", KEY.sign(typ="JWT").encode()]:
        assert not waits(Fields({}, [(b"x-authgate-identity", value)]))
    assert not waits(Fields({}, []))


def test_channels_receives_the_user_or_closes_the_handshake(publisher):
    from authgate_django.channels import GatewayMiddleware

    def handshake(*tokens):
        seen = []

        async def inner(scope, receive, send):
            seen.append((str(scope["user"]), scope["authgate"]["sub"]))

        async def send(event):
            seen.append(event["type"])

        headers = [(b"x-authgate-identity", token.encode()) for token in tokens]
        asyncio.run(GatewayMiddleware(inner)({"headers": headers}, None, send))
        return seen

    assert handshake(KEY.sign()) == [("ada", "42")]
    assert handshake(KEY.sign(typ="JWT")) == ["websocket.close"]
    publisher.status = 500
    later(publisher, jwks.MAX_STALE)
    assert handshake(KEY.sign()) == ["websocket.close"]


def test_unavailable_keys_are_no_refusal():
    assert not issubclass(Unavailable, ValueError)


class Gate:
    """The real gateway in front of this project, with a file as its store."""

    def __init__(self, folder, application):
        self.folder, self.application = folder, application
        self.config = folder / "gateway.toml"

    def write(self, keys):
        listed = ", ".join(f'{{ algorithm = "{key.algorithm}", file = "{key.kid}.key" }}' for key in keys)
        for key in keys:
            (self.folder / f"{key.kid}.key").write_text(key.private_pem())
            (self.folder / f"{key.kid}.key").chmod(0o600)
        self.config.write_text(
            f"""
[server]
listen = ["127.0.0.1:0"]
[log]
format = "json"
[admin]
listen = "127.0.0.1:0"
[stores.file]
kind = "embedded"
file = "tokens.toml"
[authenticators.token]
kind = "token"
[identity]
headers = {{}}
signed = {{ keys = [{listed}] }}
[upstreams.app]
servers = ["{self.application}"]
[[routes]]
path = "/*"
authenticate = ["token"]
optional = true
upstream = "app"
[[routes]]
path = "/jwks.json"
public = true
jwks = true
"""
        )

    def command(self, *words):
        line = [os.environ["AUTHGATE"], *words, "--config", str(self.config)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    def start(self):
        line = [os.environ["AUTHGATE"], "run", "--config", str(self.config)]
        self.process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        for event in self.process.stderr:
            if '"serving"' in event:
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        event = json.loads(event)
        self.address, self.admin = event["listen"], event["admin"]

    def get(self, path, address=None, **headers):
        host, port = (address or self.address).split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, json.loads(body)

    def reload(self):
        host, port = self.admin.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("POST", "/reload", headers={"X-Authgate-Command": "reload"})
        assert connection.getresponse().status == 200
        connection.close()


@pytest.fixture
def gate(folder, live_server):
    if "AUTHGATE" not in os.environ:
        pytest.skip("AUTHGATE names no built gateway")
    gate = Gate(folder, live_server.url)
    gate.process = None
    yield gate
    if gate.process is not None:
        gate.process.terminate()
        gate.process.wait()


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_the_real_gateway_and_django_agree_through_a_rotation(gate, settings, algorithm):
    old, new = Key(algorithm, kid="old"), Key("ES256", kid="new")
    gate.write([old])
    token = "Token " + gate.command("token", "create", "--user", "42", "--username", "ada")
    gate.start()
    for url in [f"http://{gate.admin}/jwks.json", f"http://{gate.address}/jwks.json"]:
        settings.AUTHGATE = {"IDENTITY": "signed", "AUDIENCE": "app", "JWKS_URL": url}
        for path in ["/whoami", "/page"]:
            assert gate.get(path, Authorization=token)[1]["user"] == "ada"
            assert gate.get(path)[1]["user"] == "AnonymousUser"
            forged = gate.get(path, X_Authgate_Identity=KEY.sign(), x_user_id="42")
            assert forged[1]["user"] == "AnonymousUser", "the gateway removes it"
    # Around the gateway, only a token of the gateway counts.
    direct = gate.application.removeprefix("http://")
    assert gate.get("/whoami", direct, x_user_id="42")[1]["user"] == "AnonymousUser"
    assert gate.get("/whoami", direct, X_Authgate_Identity=KEY.sign())[0] == 401
    for keys in [[old, new], [new, old], [new]]:
        gate.write(keys)
        gate.reload()
        later_keys = jwks.key_set(settings.AUTHGATE["JWKS_URL"])
        later_keys._attempted -= jwks.COOLDOWN
        for _ in range(5):
            assert gate.get("/whoami", Authorization=token) == (200, {"user": "ada", "auth": "token"})
