"""Where the store differs from Django: what `manage.py authgate_check` finds. It writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from authgate_django.store.client import CHUNK, Empty, Store
from authgate_django.store.records import (
    DIGEST,
    TOKEN,
    USER,
    Record,
    Unstorable,
    is_revoked,
    merge,
    parse_token,
    parse_user,
)
from authgate_django.store.sources import Tokens, Users, primary_keys, token_tables
from authgate_django.store.writer import token_record, user_record

SETTLE = 1.0  # seconds; a row that changes now is in the store soon
SHOWN = 12  # characters of a digest


class Drift:
    """Compares each record. A difference counts if it is still there after `SETTLE`."""

    def __init__(self, store: Store, keep_unknown: bool = False) -> None:
        self._store = store
        self._keys = store.keys
        self._users = Users()
        self._tables = token_tables()
        self._keep_unknown = keep_unknown
        self._missing = "is not in the store" + (", or not with its seal" if store.keys.is_sealed else "")
        self.compared = 0

    def find(self) -> Iterator[str]:
        """One line for each difference. Raises `StoreError`."""
        try:
            if self._store.layout().get("filling"):
                yield "the store is not complete, so gateways answer 503: run `manage.py authgate_sync` to its end"
        except Empty as empty:
            yield f"{empty}, so gateways answer 503: run `manage.py authgate_sync`"
            return
        for keys, _ in primary_keys(self._users.model, CHUNK):
            yield from self._settled([str(key) for key in keys], self._compare_users)
        for table in self._tables:
            for keys, _ in primary_keys(table.model, CHUNK, table.order):
                yield from self._settled(keys, partial(self._compare_tokens, table))
        if not self._keep_unknown:
            for ids in self._store.scan(self._keys.users):
                yield from self._settled(ids, self._unknown_users)
            for names in self._store.scan(self._keys.tokens):
                yield from self._settled(list(filter(DIGEST.match, names)), self._unknown_tokens)

    def _settled(self, names: list[str], compare: Callable[[list[str]], dict[str, str]]) -> Iterator[str]:
        differing = list(compare(names))
        if differing:
            time.sleep(SETTLE)
            yield from compare(differing).values()

    def _compare_users(self, ids: list[str]) -> dict[str, str]:
        rows = self._users.read(ids)
        stored = dict(zip(ids, self._store.get_each([self._keys.user(user_id) for user_id in ids]), strict=True))
        names = {user_id: row.get("username") for user_id, row in rows.items() if isinstance(row, dict)}
        named = {user_id: name for user_id, name in names.items() if name}
        pointers = self._store.get_each([self._keys.user_by_name(name) for name in named.values()])
        holders = dict(zip(named, pointers, strict=True))
        self.compared += len(rows)
        found = {}
        for user_id, row in rows.items():
            record = parse_user(stored[user_id], user_id)
            if isinstance(row, Unstorable):
                found[user_id] = f"user {user_id} cannot be stored: {row}"
            elif record is None:
                found[user_id] = f"user {user_id} {self._missing}"
            elif different := _differences(USER, record, user_record(record, row)):
                found[user_id] = f"user {user_id} has another {different}"
            elif user_id in holders and holders[user_id] != user_id.encode():
                found[user_id] = f"user {user_id} is not found by the username"
        return found

    def _compare_tokens(self, table: Tokens, keys: list[str]) -> dict[str, str]:
        by_name = {self._keys.name(table.digest(key)): key for key in keys}
        rows = {self._keys.name(digest): row for digest, row in table.read(keys, self._users).items()}
        stored = dict(zip(rows, self._store.get_each([self._keys.token(name) for name in rows]), strict=True))
        pairs = [(self._keys.tokens_of(row["user"]), name) for name, row in rows.items()]
        listed = dict(zip(rows, self._store.are_members(pairs), strict=True))
        self.compared += len(rows)
        found = {}
        for name, row in rows.items():
            record, token = parse_token(stored[name]), f"token {name[:SHOWN]} of user {row['user']}"
            if record is None:
                found[by_name[name]] = f"{token} {self._missing}"
            elif is_revoked(record):
                continue  # by `authgate token revoke`
            elif different := _differences(TOKEN, record, token_record(record, row)):
                found[by_name[name]] = f"{token} has another {different}"
            elif not listed[name]:
                found[by_name[name]] = f"{token} is not in the list of the user's tokens"
        return found

    def _unknown_users(self, ids: list[str]) -> dict[str, str]:
        rows = self._users.read(ids)
        return {user_id: f"user {user_id} is in the store, and not in Django" for user_id in ids if user_id not in rows}

    def _unknown_tokens(self, names: list[str]) -> dict[str, str]:
        values = self._store.get_each([self._keys.token(name) for name in names])
        stored = {name: parse_token(value) for name, value in zip(names, values, strict=True) if value is not None}
        owners = {token["user"] for token in stored.values() if token is not None}
        known = {name for table in self._tables for name in table.find(list(stored), owners, self._users, self._keys)}
        return {
            name: f"token {name[:SHOWN]} is in the store, and not in Django"
            for name, token in stored.items()
            if name not in known and not is_revoked(token)
        }


def _differences(order: tuple[str, ...], stored: Record, record: Record) -> str:
    """The names of the members. Their values may be personal data."""
    stored, record = _comparable(order, stored), _comparable(order, record)
    return ", ".join(name for name in {**record, **stored} if stored.get(name) != record.get(name))


def _comparable(order: tuple[str, ...], record: Record) -> Record:
    """Null, empty and absent are the same, and so is any order of groups."""
    record = merge(order, record, {})
    groups = record.get("groups")
    return {**record, "groups": sorted(groups)} if isinstance(groups, list) and groups else record
