"""What `manage.py check` says."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from authgate_django import conf
from authgate_django.checks import check_order, check_remote_user, check_trust, check_user_lookup

GOOD = {"SECRET_HEADER": "X-Gateway-Secret", "SECRET": "canary-0123456789abcdef"}


def ids(messages):
    return [message.id for message in messages]


def test_a_project_with_a_secret_has_nothing_to_warn_of():
    assert ids(check_trust()) == ids(check_remote_user()) == ids(check_order()) == []
    call_command("check", fail_level="WARNING")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, ["authgate.W001"]),
        ({"REQUIRE_SECRET": False}, ["authgate.W003"]),
        ({**GOOD, "REQUIRE_SECRET": False}, ["authgate.W006"]),
        ({**GOOD, "SECRET": "short"}, ["authgate.W004"]),
        ({"SECRET_HEADER": "X-Gateway-Secret"}, ["authgate.E001"]),
        ({"SECRET_HEADER": "X-Gateway-Secret", "SECRET": ""}, ["authgate.E001"]),
        ({"SECRET": "canary-0123456789abcdef"}, ["authgate.E001"]),
        ({**GOOD, "SECRET_HEADER": "X_Gateway_Secret"}, ["authgate.E001", "authgate.E001"]),
        ({**GOOD, "IDENTITY": "sealed"}, ["authgate.E001"]),
        ({**GOOD, "AUDIENCE": "app"}, ["authgate.E001"]),
        ({**GOOD, "USER_ID_HEADER": "x-gateway-secret"}, ["authgate.E001"]),
        ({**GOOD, "HEADERS": {"X-Uid": "id"}}, ["authgate.E001"]),
        ({**GOOD, "CREATE_USERS": True}, ["authgate.E001"]),
        ({**GOOD, "CREATE_USERS": True, "USER_LOOKUP": "email"}, ["authgate.E001"]),
        ({**GOOD, "HEADERS": {"X-A": "claims.a b"}}, ["authgate.E001"]),
        ({**GOOD, "HEADERS": {"X-A": "claims."}}, ["authgate.E001"]),
        ({**GOOD, "HEADERS": {"X-A": "username", "X-B": "username"}}, ["authgate.E001"]),
        ({**GOOD, "REDIS_URL": "http://127.0.0.1:6379"}, ["authgate.E001"]),
        ({**GOOD, "PREFIX": "a:"}, ["authgate.E001"]),
        ({**GOOD, "REDIS_URL": "redis://127.0.0.1", "SEAL": "x" * 32}, ["authgate.E001"]),
        ({**GOOD, "REDIS_URL": "redis://127.0.0.1", "SEAL": b"x" * 31}, ["authgate.E001"]),
        ({**GOOD, "SEAL": b"x" * 32}, ["authgate.E001"]),
        ({**GOOD, "SECRETS": "x"}, ["authgate.E001"]),
        ([], ["authgate.E001"]),
    ],
)
def test_settings_that_are_unsafe_or_wrong_are_named(settings, raw, expected):
    settings.AUTHGATE = raw
    assert ids(check_trust()) == expected
    if expected[0].startswith("authgate.E"):
        with pytest.raises(ImproperlyConfigured):
            conf.config()


def test_claims_and_attributes_are_written_as_in_the_gateways_file(settings):
    headers = {"X-A": "claims.realm_access.roles", "X-B": "claims.'a b'", "X-C": 'attributes."a.b".c'}
    settings.AUTHGATE = {**GOOD, "HEADERS": headers}
    assert ids(check_trust()) == []
    assert conf.config().headers == headers


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [("pk", []), ("username", []), ("id", []), ("email", ["authgate.E002"]), ("nickname", ["authgate.E002"])],
)
def test_user_lookup_must_be_a_unique_field(settings, lookup, expected):
    settings.AUTHGATE = {**GOOD, "USER_LOOKUP": lookup}
    assert ids(check_user_lookup()) == expected


def test_remote_user_is_named_wherever_it_is_on(settings):
    settings.MIDDLEWARE = ["django.contrib.auth.middleware.PersistentRemoteUserMiddleware"]
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    settings.REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.RemoteUserAuthentication"]
    }
    assert ids(check_remote_user()) == ["authgate.W002"] * 3


def test_the_middleware_must_be_behind_the_one_that_overwrites_its_user(settings):
    settings.MIDDLEWARE = list(reversed(settings.MIDDLEWARE))
    assert ids(check_order()) == ["authgate.W005"]


def test_no_message_and_no_text_of_the_configuration_has_the_secret(settings):
    settings.AUTHGATE = {**GOOD, "SECRET": "canary", "REDIS_URL": "redis://:canary@127.0.0.1"}
    messages = [str(message) for message in check_trust()]
    assert messages and "canary" not in "".join(messages) + repr(conf.config())
