"""The store is kept by signals, synchronized and compared: real Redis, and the real gateway where it decides."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User, update_last_login
from django.core.management import CommandError, call_command
from django.db import transaction
from knox.models import AuthToken
from rest_framework.authtoken.models import Token, TokenProxy
from rest_framework_simplejwt.utils import get_md5_hash_password

from authgate_django.store import client, signals, sync
from authgate_django.store.sources import Tokens, Users
from authgate_django.store.writer import Writer

HERE = Path(__file__).parent


@pytest.fixture
def ada(store):
    return User.objects.create_user("ada", email="ada@example.com", password="canary-one")


def token_of(user, key="canary-key"):
    return Token.objects.create(user=user, key=key)


def digest(key):
    return Tokens(Token, is_knox=False).digest(key)


def sync_all(*words):
    out = io.StringIO()
    call_command("authgate_sync", *words, stdout=out, stderr=out)
    return out.getvalue()


def check(*words):
    """The exit code and what is printed."""
    out = io.StringIO()
    try:
        call_command("authgate_check", *words, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def executed(store):
    return store.admin.info("commandstats").get("cmdstat_exec", {"calls": 0})["calls"]


# -- Signals, and the gateway that reads the store


def test_a_token_is_accepted_when_the_log_in_is_answered_and_refused_once_it_is_deleted(ada, gateway):
    token = token_of(ada)
    assert gateway.get("Token canary-key") == (200, {"user": str(ada.pk), "username": "ada", "groups": None})
    token.delete()
    gateway.wait_for("Token canary-key", 401)
    TokenProxy.objects.create(user=ada, key="canary-admin")  # as the admin makes them
    gateway.wait_for("Token canary-admin", 200)
    Token.objects.get(key="canary-admin").delete()  # a queryset of the proxy deletes nothing
    gateway.wait_for("Token canary-admin", 401)


def test_a_knox_token_is_accepted_with_its_expiry(ada, store, gateway):
    row, key = AuthToken.objects.create(user=ada)
    assert gateway.get(f"Token {key}")[0] == 200
    assert store.get(f"token:{row.digest}")["expires"] == int(row.expiry.timestamp())
    ada.auth_token_set.all().delete()
    gateway.wait_for(f"Token {key}", 401)


def test_a_user_who_is_deactivated_or_deleted_is_refused(ada, store, gateway):
    token_of(ada)
    gateway.wait_for("Token canary-key", 200)
    ada.is_active = False
    ada.save()
    gateway.wait_for("Token canary-key", 401)
    ada.is_active = True
    ada.save(update_fields=["is_active"])
    gateway.wait_for("Token canary-key", 200)
    ada.delete()
    gateway.wait_for("Token canary-key", 401)
    assert store.names() == ["layout"]


def test_a_changed_password_ends_jwts_that_have_the_old_one(ada, gateway, settings):
    from rest_framework_simplejwt.tokens import AccessToken

    def jwt():
        token = AccessToken()
        token["user_id"], token["hash_password"] = "ada", get_md5_hash_password(ada.password)
        token.token_backend.signing_key = "canary-0123456789-0123456789-01234567"
        return f"Bearer {token}"

    before = jwt()
    gateway.wait_for(before, 200, user=str(ada.pk))
    ada.set_password("canary-two")
    ada.save()
    gateway.wait_for(before, 401)
    gateway.wait_for(jwt(), 200)


def test_groups_follow_every_way_to_change_them(ada, gateway):
    token_of(ada)
    staff, press = Group.objects.create(name="staff"), Group.objects.create(name="press")
    for change, groups in [
        (lambda: ada.groups.add(staff, press), "staff,press"),
        (lambda: ada.groups.remove(press), "staff"),
        (lambda: press.user_set.add(ada), "staff,press"),
        (lambda: staff.user_set.clear(), "press"),
        (lambda: ada.groups.set([staff]), "staff"),
        (lambda: Group.objects.filter(pk=press.pk).delete(), "staff"),
        (lambda: (setattr(staff, "name", "crew"), staff.save()), "crew"),
        (lambda: staff.delete(), None),  # sends no m2m_changed
        (lambda: ada.groups.set([Group.objects.create(name="new")]), "new"),
        (lambda: ada.groups.clear(), None),
    ]:
        change()
        gateway.wait_for("Token canary-key", 200, groups=groups)


def test_a_renamed_user_is_found_by_the_new_name_only(ada, store):
    ben = User.objects.create_user("ben")
    ada.username = "lovelace"
    ada.save()
    assert (store.get("user-by-name:lovelace"), store.get("user-by-name:ada")) == (str(ada.pk), None)
    with transaction.atomic():  # two users exchange their names
        User.objects.filter(pk=ben.pk).update(username="between")
        ada.username = "ben"
        ada.save()
        ben.username = "lovelace"
        ben.save()
    found = [store.get(key) for key in ("user-by-name:ben", "user-by-name:lovelace", "user-by-name:between")]
    assert found == [str(ada.pk), str(ben.pk), None]
    assert store.get(f"user:{ben.pk}")["username"] == "lovelace"


def test_a_transaction_that_is_rolled_back_writes_nothing(ada, store):
    class Undo(Exception):
        pass

    before = store.everything("authgate:")
    with contextlib.suppress(Undo), transaction.atomic():
        token_of(ada)
        User.objects.get(pk=ada.pk).delete()
        raise Undo
    assert store.everything("authgate:") == before
    with transaction.atomic():
        with contextlib.suppress(Undo), transaction.atomic():
            token_of(ada)
            User.objects.create_user("eve")
            raise Undo
        User.objects.create_user("ben")
        assert store.everything("authgate:") == before, "before the commit"
    assert [key for key in store.names() if key.startswith("user-by-name:")] == ["user-by-name:ada", "user-by-name:ben"]
    assert f"token:{digest('canary-key')}" not in store.names()


def test_the_changes_of_one_transaction_are_written_together(ada, store):
    before = executed(store)
    with transaction.atomic():
        for name in "bcdef":
            user, _ = User.objects.get_or_create(username=name)  # in a savepoint
            token_of(user, f"canary-{name}")
    assert executed(store) - before == 2, "users, and tokens"
    assert check() == (0, "11 users and tokens are the same in the store.\n")


def test_a_log_in_that_changes_last_login_alone_writes_nothing(ada, store):
    before = executed(store)
    update_last_login(None, ada)
    assert executed(store) == before


def test_a_new_token_brings_a_user_that_was_made_without_a_signal(store, gateway):
    User.objects.bulk_create([User(username="bulk")])
    token_of(User.objects.get(username="bulk"))
    assert gateway.get("Token canary-key")[0] == 200


def test_members_that_other_programs_wrote_are_kept_and_a_revoked_token_stays_revoked(ada, store, gateway):
    key, token = f"user:{ada.pk}", token_of(ada)
    store.put(key, {**store.get(key), "attributes": {"tenant": "acme"}, "later": 1})
    ada.email = ""
    ada.save()
    record = store.get(key)
    assert (record["attributes"], record["later"], "email" in record) == ({"tenant": "acme"}, 1, False)
    name = f"token:{digest('canary-key')}"
    store.put(name, {**store.get(name), "scopes": ["read"]})
    token.save()
    assert store.get(name)["scopes"] == ["read"]
    store.put(name, {**store.get(name), "revoked": 1795000000})
    for change in [
        token.save,
        sync_all,
        token.delete,
        sync_all,
        User.objects.create(username="ben").save,
        ada.delete,
        sync_all,
    ]:
        change()
        assert store.get(name)["revoked"] == 1795000000
    gateway.wait_for("Token canary-key", 401)


def test_a_writer_with_older_rows_does_not_undo_a_newer_change(ada, store, app_url, monkeypatch):
    token = token_of(ada)
    writer = Writer(client.store(app_url, "authgate:", client.REQUEST))
    table = Tokens(Token, is_knox=False)
    read, changes = Users.read, [lambda: ada.save()]

    def late(self, ids):
        rows = read(self, ids)
        if changes:
            changes.pop()()  # another process, between the rows that were read and the write
        return rows

    monkeypatch.setattr(Users, "read", late)
    ada.is_active = False
    writer.users([str(ada.pk)], {str(ada.pk)})
    assert store.get(f"user:{ada.pk}")["active"] is False
    # The same where the newer change finds what it would write.
    User.objects.update(is_active=True)
    ada.is_active = False
    changes.append(lambda: ada.save())
    writer.users([str(ada.pk)], {str(ada.pk)})
    assert store.get(f"user:{ada.pk}")["active"] is False

    rows_of_tokens = Tokens.read
    store.admin.delete(f"authgate:token:{digest('canary-key')}")
    deletions = [token.delete]

    def late_tokens(self, keys, users):
        rows = rows_of_tokens(self, keys, users)
        if deletions:
            deletions.pop()()
        return rows

    monkeypatch.setattr(Tokens, "read", late_tokens)
    writer.tokens(table, ["canary-key"], changed=True)
    assert store.get(f"token:{digest('canary-key')}") is None


def test_a_user_that_no_header_can_name_is_refused_and_reported(ada, store, gateway, caplog):
    token_of(ada)
    ada.email = "ada\n@example.com"
    ada.save()
    assert store.get(f"user:{ada.pk}") is None
    gateway.wait_for("Token canary-key", 401)
    assert "its email has a control character" in caplog.text
    assert check()[0] == 1
    with pytest.raises(CommandError, match="1 users cannot be stored"):
        sync_all()
    ada.email = "ada@example.com"
    ada.save()
    gateway.wait_for("Token canary-key", 200)


# -- Redis down


def test_with_redis_down_changes_succeed_and_the_next_synchronization_repairs_the_store(ada, store, settings, caplog):
    url = settings.AUTHGATE["REDIS_URL"]
    settings.AUTHGATE = {**settings.AUTHGATE, "REDIS_URL": "unix:///nonexistent.sock?db=0"}
    token_of(ada)
    User.objects.create_user("ben")
    assert caplog.text.count("the gateway's store has missed a change") == 2
    assert "canary" not in caplog.text
    assert check()[0] == 2
    with pytest.raises(CommandError) as failed:
        sync_all()
    assert failed.value.returncode == 2
    settings.AUTHGATE = {**settings.AUTHGATE, "REDIS_URL": url}
    code, found = check()
    assert code == 1
    assert f"token {digest('canary-key')[:12]} of user {ada.pk} is not in the store" in found
    assert "users: 1 written, 1 unchanged, 0 removed" in sync_all()
    assert check()[0] == 0


def test_a_redis_that_does_not_answer_is_asked_twice_in_a_request_and_not_for_each_change(
    ada, folder, settings, caplog
):
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f"{folder}/silent.sock")
    silent.listen()
    accepted = []

    def accept():
        with contextlib.suppress(OSError):
            while True:
                accepted.append(silent.accept())

    threading.Thread(target=accept, daemon=True).start()
    settings.AUTHGATE = {**settings.AUTHGATE, "REDIS_URL": f"unix://{folder}/silent.sock?db=0"}
    token_of(ada)
    for _ in range(3):
        ada.save()
    assert len(accepted) == 2
    assert caplog.text.count("has missed a change") == 4
    signals._end_pause()  # the next request
    ada.save()
    assert len(accepted) == 4
    # So a request waits for two answers, and for less than 3 s.
    assert client.REQUEST.total + client.REQUEST.step < 3
    silent.close()


def test_the_log_has_the_reason_of_redis_and_no_record(ada, store, settings, caplog):
    rights = ["on", ">canary-app", "~authgate:*", "+@all", "-set"]
    store.admin.execute_command("ACL", "SETUSER", "reader", *rights)
    url = settings.AUTHGATE["REDIS_URL"].replace("app:", "reader:")
    settings.AUTHGATE = {**settings.AUTHGATE, "REDIS_URL": url}
    ada.save()
    assert "permissions to run the 'set' command" in caplog.text
    for secret in ["ada@example.com", "password_md5", "canary"]:
        assert secret not in caplog.text


def test_a_store_that_was_emptied_is_filled_by_a_synchronization_alone(ada, store, gateway, caplog):
    token_of(ada)
    store.admin.flushall()
    ada.save()
    assert store.names() == []
    assert "the store has no layout record" in caplog.text
    assert check()[0] == 1
    gateway.wait_for("Token canary-key", 503)
    assert "its revocations are lost" in sync_all()
    gateway.wait_for("Token canary-key", 200)


# -- Synchronization and comparison


@pytest.mark.skipif("AUTHGATE" not in os.environ, reason="AUTHGATE names no built gateway")
def test_a_synchronization_writes_what_the_import_writes(ada, store, folder, redis_socket, settings):
    ada.groups.set([Group.objects.create(name="staff"), Group.objects.create(name="crew & café")])
    User.objects.create_user("ben", is_active=False)
    User.objects.create(username="no password", password="!")
    token_of(ada)
    AuthToken.objects.create(user=ada)
    AuthToken.objects.create(user=ada, expiry=None)
    dump = folder / "dump.json"
    models = ["auth.user", "auth.group", "authtoken.token", "knox.authtoken"]
    call_command("dumpdata", *models, output=str(dump))
    file = folder / "gateway.toml"
    file.write_text(
        f"""
[server]
listen = ["127.0.0.1:0"]
[stores.redis]
kind = "redis"
url = "unix://{redis_socket}?db=0"
prefix = "other:"
digest = ["sha256", "sha512"]
[authenticators.token]
kind = "token"
store = "redis"
[upstreams.app]
servers = ["http://127.0.0.1:9"]
[[routes]]
path = "/*"
authenticate = ["token"]
upstream = "app"
"""
    )
    line = [os.environ["AUTHGATE"], "--config", str(file), "token", "import", str(dump)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.everything("authgate:") == store.everything("other:"), "signals"
    store.admin.flushall()
    sync_all()
    imported = subprocess.run(line, capture_output=True, text=True)
    assert imported.returncode == 0, imported.stderr
    assert store.everything("authgate:") == store.everything("other:"), "authgate_sync"
    assert store.get("layout").keys() == store.get("layout", "other:").keys()


def test_changes_without_signals_are_found_and_repaired(ada, store):
    token_of(ada)
    ben = User.objects.create_user("ben")
    ghost = User.objects.create_user("ghost")
    token_of(ghost, "canary-ghost")
    User.objects.filter(pk=ada.pk).update(is_active=False, username="lovelace")
    User.objects.bulk_create([User(username="bulk")])
    Token.objects.bulk_create([Token(user=ben, key="canary-bulk")])
    Token.objects.filter(user=ghost)._raw_delete("default")
    User.objects.filter(pk=ghost.pk)._raw_delete("default")
    code, found = check()
    assert code == 1
    assert found.splitlines()[:-1] == [
        f"user {ada.pk} has another active, username"
        if f"user {ada.pk} has another active, username" in found
        else f"user {ada.pk} has another username, active",
        f"user {User.objects.get(username='bulk').pk} is not in the store",
        f"token {digest('canary-bulk')[:12]} of user {ben.pk} is not in the store",
        f"user {ghost.pk} is in the store, and not in Django",
        f"token {digest('canary-ghost')[:12]} is in the store, and not in Django",
    ]
    assert "canary" not in found
    assert check("--limit", "1")[1].count("\n") == 1
    report = sync_all()
    assert "users: 2 written, 1 unchanged, 0 removed" in report
    assert "unknown: 2 removed" in report
    assert (store.get("user-by-name:ada"), store.get("user-by-name:ghost")) == (None, None)
    assert check()[0] == 0


def test_records_of_other_programs_are_kept_on_request(ada, store):
    store.put("user:service", {"id": "service", "username": "robot", "active": True})
    store.admin.set("authgate:user-by-name:robot", "service")
    store.put(f"token:{'0' * 64}", {"user": "service"})
    store.put("revoked:user:9", {})
    assert (check()[0], check("--keep-unknown")[0]) == (1, 0)
    sync_all("--keep-unknown")
    assert store.get("user:service")["active"] is True
    sync_all()
    assert [key for key in store.names() if "service" in key or "robot" in key or "000" in key] == []
    assert "revoked:user:9" in store.names()


def test_a_username_that_leads_to_the_wrong_user_is_repaired(ada, store):
    store.admin.set("authgate:user-by-name:ada", "999")
    store.admin.set("authgate:user-by-name:nobody", str(ada.pk))
    assert "is not found by the username" in check()[1]
    sync_all()
    assert (store.get("user-by-name:ada"), store.get("user-by-name:nobody")) == (str(ada.pk), None)


def test_an_interrupted_synchronization_leaves_an_empty_store_unused_and_goes_on(store, gateway, monkeypatch):
    monkeypatch.setattr(sync, "CHUNK", 2)
    for name in "abcdef":
        token_of(User.objects.create_user(name), f"canary-{name}")
    store.admin.flushall()
    tokens, calls = Writer.tokens, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tokens(self, *args)

    monkeypatch.setattr(Writer, "tokens", interrupted)
    with pytest.raises(CommandError) as failed:
        sync_all()
    monkeypatch.setattr(Writer, "tokens", tokens)
    message = str(failed.value)
    assert message.startswith("interrupted. Go on with --resume ") and "canary" not in message
    assert store.get("layout")["filling"] is True
    gateway.wait_for("Token canary-a", 503)
    assert check()[0] == 1
    # Signals write into a store that is being filled.
    User.objects.get(username="f").delete()
    position = message.rpartition(" ")[2]
    report = sync_all("--resume", position)
    assert "users" not in report and "tokens: 3 written" in report
    assert "filling" not in store.get("layout")
    for name, status in [("a", 200), ("e", 200), ("f", 401)]:
        gateway.wait_for(f"Token canary-{name}", status)
    assert check()[0] == 0
    store.admin.flushall()
    for wrong in [position, "nonsense"]:
        with pytest.raises(CommandError) as failed:
            sync_all("--resume", wrong)
        assert failed.value.returncode == 2


def test_a_database_without_users_does_not_empty_the_store(ada, store):
    before = store.everything("authgate:")
    User.objects.filter(pk=ada.pk)._raw_delete("default")
    with pytest.raises(CommandError, match="Django has no users"):
        sync_all()
    assert store.everything("authgate:") == before


def members(folder, app_url):
    """The environment of the project that has a user model of its own."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "DJANGO_SETTINGS_MODULE": "project.members_settings",
        "MEMBERS_DB": str(folder / "members.sqlite3"),
        "MEMBERS_REDIS": app_url,
    }


BEGIN = """
import django
django.setup()
from django.core.management import call_command
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from rest_framework.authtoken.models import Token
Member = get_user_model()
"""


def test_a_user_model_of_the_project_has_the_same_records(stored, folder, app_url):
    script = (
        BEGIN
        + """
call_command("migrate", verbosity=0)
call_command("authgate_sync", verbosity=0)
ada = Member(address="ada@example.com")
ada.set_password("canary")
ada.save()
ada.groups.add(Group.objects.create(name="staff"))
Token.objects.create(user_id=str(ada.pk), key="canary-key")
hidden = Member.objects.create(address="hidden@example.com", hidden=True)
call_command("authgate_check")
print(ada.pk)
"""
    )
    done = subprocess.run([sys.executable, "-c", script], env=members(folder, app_url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same, user_id = done.stdout.splitlines()
    assert same == "3 users and tokens are the same in the store."
    record = stored.get(f"user:{user_id}", "members:")
    assert record.pop("password_md5")
    address = "ada@example.com"
    assert record == {"id": user_id, "username": address, "email": address, "groups": ["staff"], "active": True}
    assert stored.get(f"token:{digest('canary-key')}", "members:")["user"] == user_id


def test_processes_that_change_the_same_rows_leave_the_store_equal_to_the_database(stored, folder, app_url):
    environment = members(folder, app_url)
    prepare = (
        BEGIN
        + """
call_command("migrate", verbosity=0)
for n in range(4):
    Member.objects.create(address=f"{n}@example.com")
    Group.objects.create(name=f"group {n}")
call_command("authgate_sync", verbosity=0)
"""
    )
    change = (
        BEGIN
        + """
import random, sys
from django.db import DatabaseError
chance = random.Random(int(sys.argv[1]))
for step in range(60):
    user, group = chance.choice(Member.objects.order_by("pk")), chance.choice(Group.objects.order_by("pk"))
    user.address = f"{chance.randrange(8)}@example.com"
    group.name = f"group {chance.randrange(8)}"
    user.password = str(step)
    try:
        chance.choice([
            user.save,
            group.save,
            lambda: user.groups.add(group),
            lambda: user.groups.remove(group),
            lambda: Token.objects.filter(user=user).delete(),
            lambda: Token.objects.get_or_create(user=user),
            lambda: Token.objects.create(user=user, key=f"canary-{chance.randrange(8)}"),
            lambda: (user.delete(), Member.objects.create(address=f"{sys.argv[1]}.{step}@example.com")),
        ])()
    except (DatabaseError, ValueError, Member.DoesNotExist):
        pass  # another process was first, or SQLite is locked
"""
    )
    run = [sys.executable, "-c"]
    subprocess.run([*run, prepare], env=environment, check=True)
    processes = [
        subprocess.Popen([*run, change, str(seed)], env=environment, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    done = subprocess.run(
        [*run, BEGIN + 'call_command("authgate_check")'], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
