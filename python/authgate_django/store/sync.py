"""All records at once: what `manage.py authgate_sync` does.

Signals go on writing meanwhile. An empty store is not used by gateways until it is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db.models import Model

from authgate_django.store.client import CHUNK, Store
from authgate_django.store.records import DIGEST
from authgate_django.store.sources import primary_keys, rows_of, token_tables
from authgate_django.store.writer import Writer, Written


class Refusal(Exception):
    """The synchronization must not begin. The text says why, and what to do."""


@dataclass(frozen=True)
class Position:
    """How far a synchronization has come: all rows of a part up to this one."""

    epoch: str  # of the layout record; a store that was emptied has another one
    part: str
    last: str

    def __str__(self) -> str:
        return f"{self.epoch[:8]}.{self.part}.{self.last}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises `Refusal`."""
        words = text.split(".", 2)
        if len(words) != 3:
            raise Refusal(f"--resume {text}: write the position that the interrupted command has printed.")
        return cls(*words)


@dataclass(frozen=True)
class Part:
    """The rows of one model, by a unique column, and what writes those with these primary keys."""

    name: str
    model: type[Model]
    by: str
    write: Callable[[list[Any]], Written]


@dataclass
class Synchronization:
    """One run. `position` is how far it has come, `done` what it has written by part."""

    store: Store
    keep_unknown: bool = False
    resume: Position | None = None
    progress: Callable[[str, int, int], None] = lambda part, done, total: None
    position: Position | None = None
    was_empty: bool = False
    done: dict[str, Written] = field(default_factory=dict)

    def run(self) -> None:
        """Raises `Refusal`, and `StoreError` after an interruption."""
        self.was_empty, layout = self.store.begin()
        epoch = str(layout["epoch"])
        if self.resume is not None and (self.was_empty or not epoch.startswith(self.resume.epoch)):
            raise Refusal("The store was emptied since then. Run the command again without --resume.")
        self.position = self.resume
        writer = Writer(self.store, epoch)
        removes = not self.keep_unknown
        if removes and not rows_of(writer.rows.model).exists() and any(self.store.scan(self.store.keys.users)):
            raise Refusal(
                "Django has no users, so all users of the store would be removed. If this is the right database and "
                "the right store, run `authgate user delete` for each, or use --keep-unknown."
            )
        for part in self._parts(writer):
            self._run_part(epoch, part)
        if removes:
            self._remove_unknown(writer)
        self.store.complete(epoch)

    def _parts(self, writer: Writer) -> list[Part]:
        parts = [Part("users", writer.rows.model, "pk", lambda keys: writer.users(map(str, keys)))]
        for table in token_tables():
            name = "knox" if table.is_knox else "tokens"
            parts.append(Part(name, table.model, table.order, partial(writer.tokens, table)))
        if self.resume is None:
            return parts
        names = [part.name for part in parts]
        if self.resume.part not in names:
            raise Refusal(f"--resume: there is no part {self.resume.part!r}; the parts are {', '.join(names)}.")
        return parts[names.index(self.resume.part) :]

    def _run_part(self, epoch: str, part: Part) -> None:
        done, count, total = self.done.setdefault(part.name, Written()), 0, rows_of(part.model).count()
        after = self.resume.last if self.resume and self.resume.part == part.name else None
        for chunk, last in primary_keys(part.model, CHUNK, part.by, after):
            done.add(part.write(chunk))
            count += len(chunk)
            self.position = Position(epoch, part.name, str(last))
            self.progress(part.name, count, total)

    def _remove_unknown(self, writer: Writer) -> None:
        """Users, tokens and usernames without a row. Revoked tokens stay, so that no import brings them back."""
        tables, keys = token_tables(), self.store.keys
        removed = self.done.setdefault("unknown", Written())
        for ids in self.store.scan(keys.users):
            known = writer.rows.read(ids)
            removed.removed += writer.users(user_id for user_id in ids if user_id not in known).removed
        for names in self.store.scan(keys.tokens):
            removed.add(writer.unknown_tokens(filter(DIGEST.match, names), tables))
        for names in self.store.scan(keys.names):
            removed.add(writer.unknown_names(names))
