"""Redis: one connection, and transactions that another program's write repeats."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from authgate_django.store.records import LAYOUT_VERSION, SEALED, Keys, Record, encode, parse

T = TypeVar("T")

CHUNK = 500  # records of one transaction
ATTEMPTS = 20  # of a transaction that other programs interrupt


class StoreError(Exception):
    """Redis cannot be used. The text says why, and what to do; it has no URL, because that may have a password."""


class Unreachable(StoreError):
    """Redis does not answer, or not in time."""


class Empty(StoreError):
    def __init__(self) -> None:
        super().__init__("the store has no layout record: it is new, or was emptied")


@dataclass(frozen=True)
class Limits:
    """In seconds. `step`: for one answer of Redis. `total`: for one transaction, checked before each step."""

    step: float
    total: float


# A request waits for `total` and one more step, if Redis is down: less than 3 s.
REQUEST = Limits(step=0.5, total=2.0)
COMMAND = Limits(step=5.0, total=60.0)


class Transaction:
    """Reads are watched: if another program changes one of these keys, all of it is done again."""

    def __init__(self, pipe: Any, keys: Keys, ends_at: float) -> None:
        self._pipe = pipe
        self._ends_at = ends_at
        self.keys = keys
        self._seen: dict[str, bytes | None] = {}  # as stored
        self._written: dict[str, bytes | None] = {}
        self._touched: set[str] = set()
        self._index: list[tuple[str, str, bytes]] = []

    def _step(self) -> None:
        if time.monotonic() > self._ends_at:
            raise Unreachable("Redis and the database did not answer in time")

    def fetch(self, keys: Iterable[str]) -> None:
        """Reads several keys at once, before `get` needs them."""
        new = [key for key in dict.fromkeys(keys) if key not in self._seen]
        if not new:
            return
        self._step()
        self._pipe.watch(*new)
        self._step()
        self._seen.update(zip(new, self._pipe.mget(new), strict=True))

    def get(self, key: str) -> bytes | None:
        """The value, with what this transaction writes. One without the seal is none, and is replaced."""
        if key in self._written:
            return self._written[key]
        self.fetch([key])
        return self.keys.value(key, self._seen[key])

    def members(self, key: str) -> list[str]:
        self._step()
        self._pipe.watch(key)
        self._step()
        members = (self.keys.value(key, member) for member in self._pipe.smembers(key))
        return sorted(member.decode() for member in members if member is not None)

    def set(self, key: str, value: bytes) -> bool:
        """Whether the value changes."""
        changes = self.get(key) != value
        self._written[key] = value
        return changes

    def delete(self, key: str) -> bool:
        """Whether the key was there."""
        was_there = self.get(key) is not None
        self._written[key] = None
        return was_there

    def touch(self, key: str) -> None:
        """Writes the key even if its value stays the same: a transaction that has read older rows is then repeated."""
        self._touched.add(key)

    def add_to(self, key: str, member: str) -> None:
        self._index.append(("SADD", key, self.keys.sealed(key, member.encode())))

    def remove_from(self, key: str, member: str) -> None:
        self._index.append(("SREM", key, self.keys.sealed(key, member.encode())))

    def require_layout(self, epoch: str | None = None) -> None:
        """Raises `StoreError` unless the store has records of this layout, and of this filling if one is given."""
        self.fetch([self.keys.layout])
        layout = read_layout(self.keys, self._seen[self.keys.layout])
        if epoch is not None and layout["epoch"] != epoch:
            raise StoreError("the store was emptied while this command wrote to it. Run it again")

    def commit(self) -> None:
        self._step()
        self._pipe.multi()
        for command in self._index:
            self._pipe.execute_command(*command)
        for key in dict.fromkeys([*self._written, *self._touched]):
            before = after = self._seen[key]
            if key in self._written:
                value = self._written[key]
                after = None if value is None else self.keys.sealed(key, value)
            if after is not None and (after != before or key in self._touched):
                self._pipe.set(key, after)
            elif after is None and (before is not None or key in self._touched):
                if before is None:
                    self._pipe.set(key, b"")  # deleting what is not there is no write
                self._pipe.delete(key)
        self._pipe.execute()


def read_layout(keys: Keys, stored: bytes | None) -> Record:
    """The layout record. Raises `StoreError`."""
    if stored is None:
        raise Empty()
    value = keys.value(keys.layout, stored)
    if value is None:
        raise StoreError(
            'the layout record does not have the seal of AUTHGATE["SEAL"]. If SEAL is new, run '
            "`authgate token reseal`. "
            "If the store was sealed before, another program has written to it: find out which, and fill it again"
        )
    if value.startswith(SEALED):
        raise StoreError('the store is sealed: write the bytes of its seal into AUTHGATE["SEAL"]')
    layout = parse(value, "epoch")
    if layout is not None and layout.get("resealing"):
        raise StoreError("the store is being sealed: run `authgate token reseal` to its end")
    if layout is None or layout.get("version") != LAYOUT_VERSION:
        raise StoreError(f"the store has another layout than version {LAYOUT_VERSION}: update authgate-django")
    return layout


class Store:
    """The gateway's store, for writing."""

    def __init__(self, url: str, prefix: str, limits: Limits, seal: bytes | None = None) -> None:
        self.keys = Keys(prefix, seal)
        self._limits = limits
        self._client: Any = redis.Redis.from_url(
            url,
            socket_timeout=limits.step,
            socket_connect_timeout=limits.step,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # the handshake of RESP3 needs one more answer
            decode_responses=False,
        )

    def transaction(self, body: Callable[[Transaction], T], ends_at: float | None = None) -> T:
        """What `body` answers, once its writes are in force. Raises `StoreError`. `ends_at`: of `time.monotonic()`."""
        ends_at = time.monotonic() + self._limits.total if ends_at is None else ends_at
        is_fresh = False
        for _ in range(ATTEMPTS):
            try:
                with self._client.pipeline() as pipe:
                    transaction = Transaction(pipe, self.keys, ends_at)
                    answer = body(transaction)
                    transaction.commit()
                    return answer
            except redis.WatchError:  # also for a connection that was lost
                continue
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if is_fresh:
                    raise _failed(error) from None
                is_fresh = True  # a connection may have died while it was idle
                self._client.connection_pool.disconnect(inuse_connections=False)
            except redis.RedisError as error:
                raise _failed(error) from None
        raise Unreachable("other programs change the same records all the time")

    def layout(self) -> Record:
        """Raises `StoreError`."""
        return read_layout(self.keys, self._ask(lambda: self._client.get(self.keys.layout)))

    def begin(self) -> tuple[bool, Record]:
        """Whether the store was empty, and its layout record. An empty one is not used until it is complete."""
        fresh = {"version": LAYOUT_VERSION, "epoch": secrets.token_hex(16), "filling": True}
        value = self.keys.sealed(self.keys.layout, encode(fresh))
        made = self._ask(lambda: self._client.set(self.keys.layout, value, nx=True))
        return bool(made), self.layout()

    def complete(self, epoch: str) -> None:
        """From now on gateways use the store. Raises `StoreError` if it was emptied meanwhile."""

        def body(transaction: Transaction) -> None:
            transaction.require_layout(epoch)
            layout = json.loads(transaction.get(self.keys.layout) or b"{}")
            if layout.pop("filling", None) is not None:
                transaction.set(self.keys.layout, encode(layout))

        self.transaction(body)

    def get_each(self, keys: list[str]) -> list[bytes | None]:
        """The values. One without the seal is none."""
        stored = self._ask(lambda: self._client.mget(keys)) if keys else []
        return [self.keys.value(key, each) for key, each in zip(keys, stored, strict=True)]

    def are_members(self, pairs: list[tuple[str, str]]) -> list[bool]:
        """For each key of a set and text, whether the text is a member."""
        pipe = self._client.pipeline(transaction=False)
        for key, member in pairs:
            pipe.sismember(key, self.keys.sealed(key, member.encode()))
        return [bool(each) for each in self._ask(pipe.execute)]

    def scan(self, start: str) -> Iterator[list[str]]:
        """The keys that begin like this, without the beginning, in chunks. A key may occur twice."""
        pattern = "".join("\\" + letter if letter in "*?[]\\" else letter for letter in start) + "*"
        cursor = 0
        while True:
            cursor, keys = self._ask(partial(self._client.scan, cursor, match=pattern, count=CHUNK))
            yield from chunks(name for key in keys if (name := _name(key, start)) is not None)
            if cursor == 0:
                return

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except redis.RedisError as error:
            raise _failed(error) from None


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    every = list(values)
    for at in range(0, len(every), CHUNK):
        yield every[at : at + CHUNK]


def _name(key: bytes, start: str) -> str | None:
    try:
        return key.decode().removeprefix(start)
    except UnicodeDecodeError:
        return None  # not of the layout


def _failed(error: redis.RedisError) -> StoreError:
    if isinstance(error, redis.TimeoutError):
        return Unreachable("Redis does not answer")
    reason = str(error).rpartition(" caused error: ")[2]  # before that is the command, with the record
    reason = reason.partition(", with args beginning")[0]  # a server that does not know AUTH repeats the password
    return (Unreachable if isinstance(error, redis.ConnectionError) else StoreError)(f"Redis: {reason}")


@lru_cache(maxsize=4)
def store(url: str, prefix: str, limits: Limits, seal: bytes | None = None) -> Store:
    """The same connections for the same settings."""
    return Store(url, prefix, limits, seal)
