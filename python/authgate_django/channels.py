"""Users of Django Channels. `GatewayMiddleware` replaces AuthMiddlewareStack."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser

from authgate_django.conf import config
from authgate_django.identity import Fields, Refused, Unavailable, identity, waits
from authgate_django.users import find_user

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class GatewayMiddleware:
    """`scope["user"]` is the user, or AnonymousUser; `scope["authgate"]` the `Identity`, or `None`."""

    def __init__(self, inner: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.inner = inner
        config()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            fields = Fields({}, scope["headers"])
            found = await sync_to_async(identity)(fields) if waits(fields) else identity(fields)
            user = await database_sync_to_async(find_user)(found) if found else AnonymousUser()
        except (Refused, Unavailable):
            await send({"type": "websocket.close"})  # before the handshake is accepted, so the client gets 403
            return
        await self.inner({**scope, "user": user, "authgate": found}, receive, send)
