"""Writes each change of users, groups and tokens to the store, after its transaction and before the response.

`QuerySet.update()`, `bulk_create()`, `bulk_update()`, SQL and TRUNCATE send no signal. `manage.py authgate_sync` writes
such changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from django.apps import apps
from django.core.signals import request_started
from django.db import models, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from authgate_django.conf import config
from authgate_django.store import client
from authgate_django.store.sources import Tokens, Users, database, rows_of, token_tables
from authgate_django.store.writer import Writer

log = logging.getLogger("authgate_django")

PAUSE = 2.0  # seconds
NAMED = 10  # users in a log message


class _Pause(threading.local):
    """After a failure, this thread makes no attempt until its next request: several changes must not wait for each."""

    ends_at = 0.0


_pause = _Pause()


class Change:
    """The users and tokens that one transaction has changed. Their rows are read after it."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.users: dict[str, bool] = {}  # whether the row has changed; otherwise only a token of the user has
        self.tokens: dict[Tokens, set[str]] = {}

    def add(self, other: Change) -> None:
        for user_id, changed in other.users.items():
            self.users[user_id] = changed or self.users.get(user_id, False)
        for table, keys in other.tokens.items():
            self.tokens.setdefault(table, set()).update(keys)

    def after_commit(self) -> None:
        """Has the change written when, and only when, the transaction is committed."""
        connection = transaction.get_connection(self.using)
        if not connection.in_atomic_block:
            if not connection.get_autocommit():
                self._missed("autocommit is off, and no transaction.atomic() says when the rows are there")
                return
        elif connection.run_on_commit:
            # A change that is still in this list is committed whenever this one is. If this one alone is rolled back
            # to a savepoint, the rows are read for nothing.
            before = getattr(connection.run_on_commit[-1][1], "__self__", None)
            if isinstance(before, Change):
                before.add(self)
                return
        transaction.on_commit(self.write, using=self.using, robust=True)

    def write(self) -> None:
        settings = config()
        if settings.redis_url is None:
            return
        now = time.monotonic()
        if now < _pause.ends_at:
            self._missed("Redis has just failed")
            return
        # A group may have many members; a log-in has one user and one token.
        parts = 1 + max(len(self.users), *map(len, self.tokens.values()), 0) // client.CHUNK
        try:
            store = client.store(settings.redis_url, settings.prefix, client.REQUEST, settings.seal)
            writer = Writer(store, ends_at=now + parts * client.REQUEST.total)
            problems = writer.users(
                self.users, {user_id for user_id, changed in self.users.items() if changed}
            ).problems
            for table, keys in self.tokens.items():
                writer.tokens(table, keys, changed=True)
        except client.StoreError as error:
            if isinstance(error, client.Unreachable):
                _pause.ends_at = time.monotonic() + PAUSE
            self._missed(str(error))
            return
        for user_id, problem in problems.items():
            log.error("user %r is not in the store, and is refused by the gateway: %s", user_id, problem)

    def _missed(self, reason: str) -> None:
        tokens = sum(len(keys) for keys in self.tokens.values())
        named = ", ".join(repr(user_id) for user_id in list(self.users)[:NAMED])
        more = f" and {len(self.users) - NAMED} more" if len(self.users) > NAMED else ""
        log.error(
            "the gateway's store has missed a change of users %s%s and %d tokens: %s. Run `manage.py authgate_sync`",
            named or "none",
            more,
            tokens,
            reason,
        )


def connect() -> None:
    """Receives the signals of these models, their proxies and their children. Calling it again changes nothing."""
    users = Users()
    request_started.connect(_end_pause, dispatch_uid="authgate_django._end_pause")
    for model in _kinds_of(users.model):
        _receive(post_save, model, _user_saved)
        _receive(post_delete, model, _user_deleted)
    if users.groups is not None:
        through = users.groups.remote_field.through
        _receive(m2m_changed, through, _members_changed)
        if not through._meta.auto_created:
            _receive(post_save, through, _membership_changed)
            _receive(post_delete, through, _membership_changed)
        for model in _kinds_of(users.groups.related_model):
            _receive(post_save, model, _group_saved)
            _receive(pre_delete, model, _group_deleted)  # afterwards it has no members, and sends no m2m_changed
    for table in token_tables():
        for model in _kinds_of(table.model):
            _receive(post_save, model, _token_changed)
            _receive(post_delete, model, _token_changed)


def _kinds_of(base: type[models.Model]) -> Iterator[type[models.Model]]:
    return (model for model in apps.get_models() if issubclass(model, base))


def _receive(signal: Any, sender: type[models.Model], receiver: Callable[..., None]) -> None:
    signal.connect(receiver, sender=sender, dispatch_uid=f"authgate_django.{receiver.__name__}")


def _end_pause(**_: Any) -> None:
    _pause.ends_at = 0.0


def _is_ours(model: type[models.Model], using: str) -> bool:
    """Whether the row is in the database that the store is a copy of."""
    return using == database(model)


def _key(model: type[models.Model], instance: Any) -> Any:
    """Not `instance.pk`: the proxy of authtoken's model has another one."""
    return getattr(instance, model._meta.pk.attname)


def _users_changed(users: Users, keys: Collection[Any], using: str) -> None:
    if keys:
        change = Change(using)
        change.users = {users.id_of(key): True for key in keys}
        change.after_commit()


def _user_saved(instance: Any, created: bool, using: str, update_fields: Any = None, **_: Any) -> None:
    users = Users()
    if not _is_ours(users.model, using):
        return
    if not created and update_fields is not None and users.fields.isdisjoint(update_fields):
        return  # such as last_login
    _users_changed(users, [_key(users.model, instance)], using)


def _user_deleted(instance: Any, using: str, **_: Any) -> None:
    users = Users()
    if _is_ours(users.model, using):
        _users_changed(users, [_key(users.model, instance)], using)


def _members_changed(instance: Any, action: str, reverse: bool, using: str, pk_set: Any = None, **_: Any) -> None:
    users = Users()
    if not _is_ours(users.model, using):
        return
    if not reverse:
        if action in ("post_add", "post_remove", "post_clear"):
            _users_changed(users, [_key(users.model, instance)], using)
    elif action == "pre_clear":
        _users_changed(users, _members(users, instance), using)
    elif action in ("post_add", "post_remove"):
        _users_changed(users, list(pk_set or ()), using)


def _membership_changed(instance: Any, using: str, **_: Any) -> None:
    users = Users()
    if _is_ours(users.model, using):
        field = instance._meta.get_field(users.groups.m2m_field_name())
        _users_changed(users, [getattr(instance, field.attname)], using)


def _group_saved(instance: Any, created: bool, using: str, update_fields: Any = None, **_: Any) -> None:
    users = Users()
    if _is_ours(users.model, using) and not created and (update_fields is None or "name" in update_fields):
        _users_changed(users, _members(users, instance), using)


def _group_deleted(instance: Any, using: str, **_: Any) -> None:
    users = Users()
    if _is_ours(users.model, using):
        _users_changed(users, _members(users, instance), using)


def _members(users: Users, group: Any) -> list[Any]:
    return list(rows_of(users.model).filter(groups=group.pk).values_list("pk", flat=True))


def _token_changed(instance: Any, using: str, **_: Any) -> None:
    for table in token_tables():
        if isinstance(instance, table.model) and _is_ours(table.model, using):
            change = Change(using)
            change.tokens = {table: {_key(table.model, instance)}}
            change.users = {Users().id_of(instance.user_id): False}  # it may have been made without a signal
            change.after_commit()
