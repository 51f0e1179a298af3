"""Who is trusted, and what a request carries. Each case goes through Django itself."""

import asyncio

import pytest
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client
from rest_framework.test import APIRequestFactory

from authgate_django.authentication import GatewayAuthentication
from authgate_django.identity import Fields, Refused, identity
from authgate_django.users import GatewayUser

SECRET = "canary-0123456789abcdef"
WITH_SECRET = {"SECRET_HEADER": "X-Gateway-Secret", "SECRET": SECRET}
FIELDS = {
    "X-Auth-Source": "authenticator",
    "X-User-Name": "username",
    "X-User-Groups": "groups",
    "X-User-Scopes": "scopes",
    "X-Tenant": "claims.tenant",
}
PAGES = ["/whoami", "/page"]
WRONG = [None, "", "canary-guessed", f"{SECRET},{SECRET}", f"{SECRET},", "\xe9", SECRET.upper()]


@pytest.fixture
def ada(db):
    return get_user_model().objects.create(pk=42, username="ada", password="!")


def fields(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


def get(target, **headers):
    return Client().get(target, headers=fields(headers))


def through(target, **headers):
    return get(target, x_gateway_secret=SECRET, **headers)


@pytest.mark.parametrize("target", PAGES)
def test_the_user_whose_id_the_gateway_sends_is_the_user_of_the_request(ada, target):
    reply = through(target, x_user_id="42")
    assert (reply.status_code, reply.json()["user"]) == (200, "ada")
    assert not reply.cookies, "no session is started"


@pytest.mark.parametrize("target", PAGES)
@pytest.mark.parametrize(
    "secret", [None, "", "canary-guessed", f"{SECRET},{SECRET}", f"{SECRET},", "\xe9", SECRET.upper()]
)
def test_an_identity_without_exactly_the_secret_is_refused(ada, target, secret):
    presented = {} if secret is None else {"x_gateway_secret": secret}
    reply = get(target, x_user_id="42", **presented)
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Token")
    assert reply.json() == {"detail": "The request did not come through the gateway."}


@pytest.mark.parametrize("target", PAGES)
def test_without_a_configured_secret_no_identity_is_trusted(ada, settings, target):
    settings.AUTHGATE = {}
    assert get(target, x_user_id="42").status_code == 401
    assert get(target, x_user_id="42", x_gateway_secret="").status_code == 401
    settings.AUTHGATE = {"REQUIRE_SECRET": False}
    assert get(target, x_user_id="42").json()["user"] == "ada"


@pytest.mark.parametrize("target", PAGES)
def test_a_request_without_identity_is_anonymous(db, target):
    for reply in [get(target), through(target)]:
        assert (reply.status_code, reply.json()["user"]) == (200, "AnonymousUser")


@pytest.mark.parametrize("target", PAGES)
@pytest.mark.parametrize("user_id", ["", "43", "042", "4_2", " 42", "x", "\xff", "%FF", "42,42"])
def test_an_id_that_is_not_exactly_that_of_a_user_is_refused(ada, target, user_id):
    reply = through(target, x_user_id=user_id)
    assert (reply.status_code, reply.json()["detail"]) == (401, "User inactive or deleted.")


@pytest.mark.parametrize("target", PAGES)
def test_a_user_who_is_inactive_in_django_is_refused(ada, target):
    get_user_model().objects.update(is_active=False)
    assert through(target, x_user_id="42").status_code == 401


def test_two_secrets_are_accepted_while_one_replaces_the_other(ada, settings):
    settings.AUTHGATE = {**WITH_SECRET, "SECRET": ["canary-the-next-secret", SECRET]}
    for secret, status in [(SECRET, 200), ("canary-the-next-secret", 200), ("canary-another-one", 401)]:
        assert get("/whoami", x_user_id="42", x_gateway_secret=secret).status_code == status


def test_the_authenticator_must_agree_with_the_id(ada, settings):
    settings.AUTHGATE = {**WITH_SECRET, "HEADERS": FIELDS}
    assert through("/whoami", x_user_id="42", x_auth_source="token").json() == {"user": "ada", "auth": "token"}
    for name in ["anonymous", "public", "unknown"]:
        assert through("/whoami", x_auth_source=name).json() == {"user": "AnonymousUser", "auth": None}
        assert through("/whoami", x_auth_source=name, x_user_id="42").status_code == 401
    assert through("/whoami", x_auth_source="token").status_code == 401
    assert through("/whoami", x_user_id="42").status_code == 401
    assert get("/whoami", x_auth_source="token").status_code == 401, "without the secret"


def test_request_auth_has_scopes_groups_and_claims(ada, settings):
    settings.AUTHGATE = {**WITH_SECRET, "HEADERS": FIELDS}
    request = APIRequestFactory().get(
        "/",
        headers={
            "X-Gateway-Secret": SECRET,
            "X-User-Id": "42",
            "X-Auth-Source": "jwt",
            "X-User-Name": "zo%C3%AB",
            "X-User-Groups": "staff,a%2Cb",
            "X-User-Scopes": "orders:read,orders:write",
            "X-Tenant": "acme",
        },
    )
    user, auth = GatewayAuthentication().authenticate(request)
    assert user == ada
    assert (auth.username, auth.groups) == ("zoë", ("staff", "a,b"))
    assert auth.claims == {"tenant": "acme"}
    assert auth.has_scope("orders:read") and not auth.has_scope("orders")


def test_with_users_from_headers_no_query_is_made(ada, settings, django_assert_num_queries):
    settings.AUTHGATE = {**WITH_SECRET, "HEADERS": FIELDS, "USERS": "headers"}
    sent = {"x_user_id": "42", "x_user_name": "lovelace", "x_auth_source": "token"}
    for target in PAGES:
        with django_assert_num_queries(0):
            assert through(target, **sent).json()["user"] == "lovelace", target
    user = GatewayUser(identity(Fields({"HTTP_X_GATEWAY_SECRET": SECRET, **meta(sent)})))
    assert user.is_authenticated and not user.is_staff and not user.has_perm("auth.add_user")
    with django_assert_num_queries(1):
        assert user.database_user == user.database_user == ada


def meta(headers):
    return {"HTTP_" + name.upper(): value for name, value in headers.items()}


def test_users_can_be_looked_up_by_another_field_and_created(ada, settings):
    settings.AUTHGATE = {**WITH_SECRET, "USER_LOOKUP": "username"}
    assert through("/whoami", x_user_id="ada").json()["user"] == "ada"
    assert through("/whoami", x_user_id="ben").status_code == 401
    settings.AUTHGATE = {**settings.AUTHGATE, "CREATE_USERS": True}
    for _ in range(2):
        assert through("/whoami", x_user_id="ben").json()["user"] == "ben"
    assert not get_user_model().objects.get(username="ben").has_usable_password()


def test_an_id_that_two_users_have_is_refused(ada, settings):
    model = get_user_model()
    settings.AUTHGATE = {**WITH_SECRET, "USER_LOOKUP": "email"}
    model.objects.update(email="ada@example.com")
    assert through("/whoami", x_user_id="ada@example.com").json()["user"] == "ada"
    model.objects.create(username="eve", email="ada@example.com")
    assert through("/whoami", x_user_id="ada@example.com").status_code == 401


def test_a_new_user_needs_a_username_that_is_free(ada, settings):
    settings.AUTHGATE = {
        **WITH_SECRET,
        "HEADERS": {"X-User-Name": "username"},
        "USER_LOOKUP": "email",
        "CREATE_USERS": True,
    }
    assert through("/whoami", x_user_id="ben@example.com", x_user_name="ben").json()["user"] == "ben"
    for name in [{}, {"x_user_name": "ada"}]:
        assert through("/whoami", x_user_id="cleo@example.com", **name).status_code == 401
    assert get_user_model().objects.count() == 2


def test_a_post_with_an_identity_needs_no_csrf_token_and_one_without_does(ada):
    client = Client(enforce_csrf_checks=True)
    sent = {"X-Gateway-Secret": SECRET, "X-User-Id": "42"}
    assert client.post("/page", headers=sent).status_code == 200
    assert client.post("/page").status_code == 403


@pytest.mark.django_db(transaction=True)
def test_the_middleware_serves_asgi(settings):
    settings.AUTHGATE = {**WITH_SECRET, "USERS": "headers"}

    async def call(**headers):
        return await AsyncClient().get(
            "/async", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    assert asyncio.run(call(x_user_id="42", x_gateway_secret=SECRET)).json() == {"user": "42"}
    assert asyncio.run(call(x_user_id="42")).status_code == 401


def test_a_repeated_field_and_one_with_an_underscore_are_not_the_gateways():
    secret = (b"x-gateway-secret", SECRET.encode())
    one = (b"X-User-Id", b"42")
    assert identity(Fields({}, [secret, one])).id == "42"
    for repeated in [[secret, one, one], [secret, secret, one]]:
        with pytest.raises(Refused):
            identity(Fields({}, repeated))
    assert identity(Fields({}, [secret, (b"x_user_id", b"42")])) is None


def test_channels_receives_the_user_or_closes_the_handshake(ada, settings):
    settings.AUTHGATE = {**WITH_SECRET, "USERS": "headers"}
    from authgate_django.channels import GatewayMiddleware

    def handshake(headers):
        seen = []

        async def inner(scope, receive, send):
            seen.append(str(scope["user"]))

        async def send(event):
            seen.append(event["type"])

        asyncio.run(GatewayMiddleware(inner)({"headers": headers}, None, send))
        return seen

    secret = (b"x-gateway-secret", SECRET.encode())
    assert handshake([secret, (b"x-user-id", b"42")]) == ["42"]
    assert handshake([]) == ["AnonymousUser"]
    assert handshake([(b"x-user-id", b"42")]) == ["websocket.close"]
