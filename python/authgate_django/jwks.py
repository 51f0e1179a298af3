"""The keys at `JWKS_URL`: fetched once, refreshed in the background, and kept while the gateway does not answer."""

from __future__ import annotations

import logging
import os
import threading
import time
import urllib.request
from functools import lru_cache
from typing import Any
from urllib.error import URLError

from authgate_django.fields import Unavailable
from authgate_django.keys import PublicKey, parse_set

log = logging.getLogger("authgate_django")

REFRESH = 300.0  # seconds; as long as the gateway lets caches keep the keys
COOLDOWN = 10.0  # seconds from one fetch to the next, whatever its cause
MAX_STALE = 24 * 3600.0  # seconds; then keys that could not be refreshed verify nothing
TIMEOUT = 5.0  # seconds, for a whole fetch
MAX_BYTES = 1 << 20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None  # an HTTPError, which is a failed fetch


class KeySet:
    """The keys of one URL, for all threads of a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        # 0 <= age of `_keys` <= MAX_STALE wherever they are used. `_keys` is replaced as a whole.
        self._keys: dict[str, PublicKey] = {}
        self._fetched = self._attempted = float("-inf")
        self._failed = False
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """A fork copies the lock as it is, and no thread that would release it."""
        self._lock = threading.Lock()
        self._refreshing = False

    def is_known(self, kid: str) -> bool:
        """Whether `find` returns without a fetch."""
        return kid in self._usable()

    def find(self, kid: str) -> PublicKey | None:
        """The key with this id. It waits for a fetch only if the key is unknown. Raises `Unavailable`."""
        key = self._usable().get(kid)
        if key is not None:
            if self._age() >= REFRESH:
                self._refresh_in_background()
            return key
        with self._lock:  # another request may have fetched meanwhile
            if kid not in self._usable() and self._may_fetch():
                self._fetch()
        key = self._usable().get(kid)
        if key is None and (self._failed or not self._usable()):
            raise Unavailable
        return key

    def _age(self) -> float:
        return time.monotonic() - self._fetched

    def _usable(self) -> dict[str, PublicKey]:
        return self._keys if self._age() < MAX_STALE else {}

    def _may_fetch(self) -> bool:
        return time.monotonic() - self._attempted >= COOLDOWN

    def _refresh_in_background(self) -> None:
        if self._refreshing or not self._may_fetch():
            return
        self._refreshing = True
        threading.Thread(target=self._refresh, name="authgate-jwks", daemon=True).start()

    def _refresh(self) -> None:
        try:
            with self._lock:
                if self._age() >= REFRESH and self._may_fetch():
                    self._fetch()
        finally:
            self._refreshing = False

    def _fetch(self) -> None:
        """Replaces the keys, or leaves them as they are. The caller holds the lock."""
        self._attempted = time.monotonic()
        try:
            keys = parse_set(self._read())
        except (OSError, URLError, ValueError) as problem:
            self._failed = True
            log.error("the keys of the gateway cannot be read from JWKS_URL: %s", problem)
        else:
            self._keys, self._fetched, self._failed = keys, time.monotonic(), False

    def _read(self) -> bytes:
        # No proxy of the environment: the keys come from the gateway itself.
        opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        deadline, body = time.monotonic() + TIMEOUT, b""
        with opener.open(self.url, timeout=TIMEOUT) as answer:  # conf.py has checked its scheme
            while chunk := answer.read1(MAX_BYTES + 1 - len(body)):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"it has more than {MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it took more than {TIMEOUT} s")
        return body


@lru_cache(maxsize=1)
def key_set(url: str) -> KeySet:
    """The keys of this URL, which outlive a request."""
    return KeySet(url)
