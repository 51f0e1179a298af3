"""A sealed store: what signals and the synchronization write, and records of other programs. With the real gateway."""

import io
import json
import os
import subprocess

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from knox.models import AuthToken
from rest_framework.authtoken.models import Token

from authgate_django.store import signals
from authgate_django.store.records import Keys
from authgate_django.store.sources import Tokens

SEAL = bytes([7]) * 32
KEYS = Keys("authgate:", SEAL)


@pytest.fixture
def seal():
    return SEAL


@pytest.fixture
def ada(store):
    return User.objects.create_user("ada", email="ada@example.com", password="canary-one")


def token_key(key):
    """The key of a token of authtoken, without the prefix."""
    return "token:" + KEYS.name(Tokens(Token, is_knox=False).digest(key))


def sync_all(*words):
    out = io.StringIO()
    call_command("authgate_sync", *words, stdout=out, stderr=out)
    return out.getvalue()


def check():
    out = io.StringIO()
    try:
        call_command("authgate_check", stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def values(store):
    """The values by key, without their seals, which are checked."""
    found = {}
    for key, stored in store.everything("authgate:").items():
        for each in stored if isinstance(stored, set) else [stored]:
            value = KEYS.value("authgate:" + key, each.encode())
            assert value is not None, (key, each)
            found.setdefault(key, set()).add(value.decode())
    return found


def test_the_layout_names_and_values_are_those_of_the_description():
    """The gateway has the same test."""
    keys = Keys("authgate:", bytes([1]) * 32)
    sealed = keys.sealed("authgate:user:1", b'{"id":"1","active":true}')
    assert sealed == b's1.E9wAfWWpI_o9tqWCe1Vxjl69SZWjD2Po-D8GoNH4WaM.{"id":"1","active":true}'
    assert (
        keys.name(Tokens(Token, is_knox=False).digest("canary"))
        == "530b095115c377dec0889b3b4366158680a291ba6aebd4c91723bae4df504f8d"
    )
    assert keys.value("authgate:user:1", sealed) == b'{"id":"1","active":true}'
    others = [b"", b"{}", b"s1.", sealed[:-1], sealed + b" ", b"s2" + sealed[2:], sealed[3:]]
    assert [keys.value("authgate:user:1", other) for other in others] == [None] * len(others)
    assert keys.value("authgate:user:2", sealed) is None
    assert Keys("authgate:", SEAL).value("authgate:user:1", sealed) is None


def test_the_gateway_accepts_what_signals_write_and_refuses_what_they_remove(ada, store, gateway):
    token = Token.objects.create(user=ada, key="canary-key")
    row, knox = AuthToken.objects.create(user=ada)
    for key in ["canary-key", knox]:
        assert gateway.get(f"Token {key}") == (200, {"user": str(ada.pk), "username": "ada", "groups": None})
    ada.groups.add(Group.objects.create(name="staff"))
    gateway.wait_for("Token canary-key", 200, groups="staff")
    assert token_key("canary-key") in values(store)
    assert f"token:{KEYS.name(row.digest)}" in values(store)
    token.delete()
    row.delete()
    for key in ["canary-key", knox]:
        gateway.wait_for(f"Token {key}", 401)
    ada.is_active = False
    ada.save()
    Token.objects.create(user=ada, key="canary-two")
    gateway.wait_for("Token canary-two", 401)
    ada.delete()
    assert [key for key in values(store) if not key.startswith("tokens-of:")] == []


@pytest.mark.skipif("AUTHGATE" not in os.environ, reason="AUTHGATE names no built gateway")
def test_a_synchronization_writes_what_the_import_writes(ada, store, gateway, folder):
    ada.groups.set([Group.objects.create(name="crew & café")])
    Token.objects.create(user=ada, key="canary-key")
    AuthToken.objects.create(user=ada)
    sync_all()
    synchronized = store.everything("authgate:")
    assert len(values(store)) == 5
    dump = folder / "dump.json"
    call_command("dumpdata", "auth.user", "auth.group", "authtoken.token", "knox.authtoken", output=str(dump))
    store.admin.flushall()
    line = [os.environ["AUTHGATE"], "token", "import", str(dump), "--config", str(gateway.file)]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "JWT_SECRET": "canary" * 8})
    assert store.everything("authgate:") == synchronized
    assert check()[0] == 0
    line = [os.environ["AUTHGATE"], "token", "revoke", "canary-key", "--config", str(gateway.file)]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "JWT_SECRET": "canary" * 8})
    assert "revoked and left so" in sync_all()
    gateway.wait_for("Token canary-key", 401)


def test_records_without_the_seal_are_reported_and_replaced(ada, store, gateway):
    Token.objects.create(user=ada, key="canary-key")
    sync_all()
    written = values(store)
    evil = json.dumps({"id": str(ada.pk), "username": "ada", "groups": ["admin"], "active": True})
    store.admin.set(f"authgate:user:{ada.pk}", evil)
    store.admin.set("authgate:user-by-name:ada", "1")
    store.admin.set("authgate:" + token_key("canary-key"), json.dumps({"user": "1"}))
    # Unknown to Django.
    store.admin.set("authgate:user:999", KEYS.sealed("authgate:user:999", b'{"id":"999","active":true}'))
    name = KEYS.sealed("authgate:user-by-name:evil", b"999")
    store.admin.set("authgate:user-by-name:evil", name)
    other = "authgate:token:" + KEYS.name("ab" * 32)
    store.admin.set(other, KEYS.sealed(other, b'{"user":"999"}'))
    code, found = check()
    assert code == 1
    for part in ["is not in the store, or not with its seal", "user 999 is in the store", "token "]:
        assert part in found, found
    assert gateway.get("Token canary-key")[0] == 503
    sync_all()
    assert values(store) == written
    assert check()[0] == 0
    gateway.wait_for("Token canary-key", 200, groups=None)


def test_a_store_with_another_seal_or_none_is_not_written(ada, store, settings, caplog):
    def refusal():
        with pytest.raises(CommandError) as refused:
            sync_all()
        signals._end_pause()
        caplog.clear()
        ada.save()
        assert "has missed a change" in caplog.text
        return str(refused.value)

    before = values(store)
    good = settings.AUTHGATE
    settings.AUTHGATE = {**good, "SEAL": bytes([8]) * 32}
    assert "does not have the seal" in refusal()
    settings.AUTHGATE = {key: value for key, value in good.items() if key != "SEAL"}
    assert "the store is sealed: write the bytes" in refusal()
    settings.AUTHGATE = good
    layout = json.loads(KEYS.value("authgate:layout", store.admin.get("authgate:layout").encode()))
    store.admin.set("authgate:layout", json.dumps(layout))
    assert "`authgate token reseal`" in refusal()
    resealing = json.dumps({**layout, "filling": True, "resealing": 1}).encode()
    store.admin.set("authgate:layout", KEYS.sealed("authgate:layout", resealing))
    assert "is being sealed" in refusal()
    assert values(store) == before
