"""Makes records equal to the rows of Django.

Each transaction watches the records first, and then reads the rows. If two programs write the same record, the
transaction with older rows is repeated. A revoked token stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields

from authgate_django.store.client import Store, Transaction, chunks
from authgate_django.store.records import (
    TOKEN,
    USER,
    Record,
    Unstorable,
    encode,
    is_revoked,
    merge,
    parse_token,
    parse_user,
)
from authgate_django.store.sources import Tokens, Users


@dataclass
class Written:
    """What was done. `problems` are users that cannot be stored, with the reason."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    revoked: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, other: Written) -> None:
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, mine | theirs if isinstance(mine, dict) else mine + theirs)


def user_record(stored: Record | None, members: Record) -> Record:
    """The record that these members and the stored record make."""
    record = merge(USER, stored, members)
    return merge(USER, record, {"active": record.get("active") is not False})


def token_record(stored: Record | None, members: Record) -> Record:
    """Nothing is kept from a token of another user."""
    return merge(TOKEN, stored if stored is not None and stored["user"] == members["user"] else None, members)


class Writer:
    """Writes to one store. With an epoch, only as long as the store was not emptied."""

    def __init__(self, store: Store, epoch: str | None = None, ends_at: float | None = None) -> None:
        self.store = store
        self.keys = store.keys
        self.rows = Users()
        self._epoch = epoch
        self._ends_at = ends_at

    def users(self, ids: Iterable[str], changed: Collection[str] = ()) -> Written:
        """Users with these ids: written, or removed with their tokens. `changed`: their rows have just changed."""
        done = Written()
        for chunk in chunks(ids):
            done.add(self.store.transaction(self._users(chunk, changed), self._ends_at))
        return done

    def tokens(self, table: Tokens, keys: Iterable[str], changed: bool = False) -> Written:
        """Tokens with these primary keys: written, or removed."""
        done = Written()
        for chunk in chunks(keys):
            done.add(self.store.transaction(self._tokens(table, chunk, changed), self._ends_at))
        return done

    def unknown_tokens(self, names: Iterable[str], tables: Collection[Tokens]) -> Written:
        """Removes those of these tokens that have no row."""
        done = Written()
        for chunk in chunks(names):
            done.add(self.store.transaction(self._unknown_tokens(chunk, tables), self._ends_at))
        return done

    def unknown_names(self, names: Iterable[str]) -> Written:
        """Removes those of these usernames that lead to a user with another one."""
        done = Written()
        for chunk in chunks(names):
            done.add(self.store.transaction(self._unknown_names(chunk), self._ends_at))
        return done

    def _begin(self, transaction: Transaction, keys: Iterable[str]) -> None:
        transaction.fetch([self.keys.layout, *keys])
        transaction.require_layout(self._epoch)

    def _users(self, ids: list[str], changed: Collection[str]) -> Callable[[Transaction], Written]:
        def body(transaction: Transaction) -> Written:
            self._begin(transaction, map(self.keys.user, ids))
            rows = self.rows.read(ids)
            stored = {user_id: parse_user(transaction.get(self.keys.user(user_id)), user_id) for user_id in ids}
            names = [each.get("username") for each in [*stored.values(), *rows.values()] if isinstance(each, dict)]
            transaction.fetch(self.keys.user_by_name(name) for name in names if isinstance(name, str))
            done = Written()
            for user_id in ids:
                if user_id in changed:
                    transaction.touch(self.keys.user(user_id))
                members = rows.get(user_id)
                if members is None or isinstance(members, Unstorable):
                    done.removed += self._remove_user(transaction, user_id)
                if members is None:
                    done.removed += self._remove_tokens_of(transaction, user_id)
                elif isinstance(members, Unstorable):
                    done.problems[user_id] = str(members)
                elif self._put_user(transaction, user_id, members):
                    done.written += 1
                else:
                    done.unchanged += 1
            return done

        return body

    def _put_user(self, transaction: Transaction, user_id: str, members: Record) -> bool:
        key = self.keys.user(user_id)
        stored = parse_user(transaction.get(key), user_id)
        record = user_record(stored, members)
        name, old = record.get("username"), (stored or {}).get("username")
        changes = False
        if isinstance(name, str):
            changes = self._claim(transaction, name, user_id)
        if isinstance(old, str) and old != name:
            changes |= self._release(transaction, old, user_id)
        return transaction.set(key, encode(record)) or changes

    def _remove_user(self, transaction: Transaction, user_id: str) -> bool:
        key = self.keys.user(user_id)
        name = (parse_user(transaction.get(key), user_id) or {}).get("username")
        if isinstance(name, str):
            self._release(transaction, name, user_id)
        return transaction.delete(key)

    def _claim(self, transaction: Transaction, name: str, user_id: str) -> bool:
        """Makes the username lead to this user. Django says who has it."""
        pointer = self.keys.user_by_name(name)
        holder = (transaction.get(pointer) or b"").decode(errors="replace")
        if holder == user_id:
            return False
        key = self.keys.user(holder)
        other = parse_user(transaction.get(key), holder) if holder else None
        if other is not None and other.get("username") == name:
            transaction.set(key, encode(merge(USER, other, {"username": None})))
        return transaction.set(pointer, user_id.encode())

    def _release(self, transaction: Transaction, name: str, user_id: str) -> bool:
        pointer = self.keys.user_by_name(name)
        return transaction.get(pointer) == user_id.encode() and transaction.delete(pointer)

    def _remove_tokens_of(self, transaction: Transaction, user_id: str) -> int:
        index = self.keys.tokens_of(user_id)
        names = transaction.members(index)
        transaction.fetch(map(self.keys.token, names))
        removed = 0
        for name in names:
            token = parse_token(transaction.get(self.keys.token(name)))
            if token is not None and token["user"] == user_id and not is_revoked(token):
                removed += transaction.delete(self.keys.token(name))
                transaction.remove_from(index, name)
        return removed

    def _tokens(self, table: Tokens, keys: list[str], changed: bool) -> Callable[[Transaction], Written]:
        names = list(dict.fromkeys(self.keys.name(table.digest(key)) for key in keys))

        def body(transaction: Transaction) -> Written:
            self._begin(transaction, map(self.keys.token, names))
            rows = {self.keys.name(digest): row for digest, row in table.read(keys, self.rows).items()}
            done = Written()
            for name in names:
                key = self.keys.token(name)
                if changed:
                    transaction.touch(key)
                stored = parse_token(transaction.get(key))
                if is_revoked(stored):
                    done.revoked += 1
                elif name not in rows:
                    done.removed += self._remove_token(transaction, name, stored)
                elif self._put_token(transaction, name, stored, rows[name]):
                    done.written += 1
                else:
                    done.unchanged += 1
            return done

        return body

    def _put_token(self, transaction: Transaction, name: str, stored: Record | None, members: Record) -> bool:
        if stored is not None and stored["user"] != members["user"]:
            transaction.remove_from(self.keys.tokens_of(stored["user"]), name)
        transaction.add_to(self.keys.tokens_of(members["user"]), name)
        return transaction.set(self.keys.token(name), encode(token_record(stored, members)))

    def _remove_token(self, transaction: Transaction, name: str, stored: Record | None) -> bool:
        if stored is not None:
            transaction.remove_from(self.keys.tokens_of(stored["user"]), name)
        return transaction.delete(self.keys.token(name))

    def _unknown_tokens(self, names: list[str], tables: Collection[Tokens]) -> Callable[[Transaction], Written]:
        def body(transaction: Transaction) -> Written:
            self._begin(transaction, map(self.keys.token, names))
            stored = {name: parse_token(transaction.get(self.keys.token(name))) for name in names}
            owners = {token["user"] for token in stored.values() if token is not None}
            known = {name for table in tables for name in table.find(names, owners, self.rows, self.keys)}
            done = Written()
            for name, token in stored.items():
                if name not in known and not is_revoked(token):
                    done.removed += self._remove_token(transaction, name, token)
            return done

        return body

    def _unknown_names(self, names: list[str]) -> Callable[[Transaction], Written]:
        def body(transaction: Transaction) -> Written:
            self._begin(transaction, map(self.keys.user_by_name, names))
            holders = {}
            for name in names:
                holders[name] = (transaction.get(self.keys.user_by_name(name)) or b"").decode(errors="replace")
            transaction.fetch(map(self.keys.user, holders.values()))
            done = Written()
            for name, holder in holders.items():
                user = parse_user(transaction.get(self.keys.user(holder)), holder)
                if (user or {}).get("username") != name:
                    done.removed += transaction.delete(self.keys.user_by_name(name))
            return done

        return body
