"""Users of Django Channels behind authgate. Copy this file into your project, beside gateway_auth.py. The same conditions apply.

It replaces AuthMiddlewareStack. `scope["user"]` is the user that the gateway has authenticated, or AnonymousUser.
"""

from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser
from rest_framework.exceptions import AuthenticationFailed

from gateway_auth import GatewayAuthentication


class Handshake:
    """The header fields of a WebSocket handshake, in the form that GatewayAuthentication reads."""

    def __init__(self, headers):
        self.META = {}
        for name, value in headers:
            if b"_" in name:  # X_User_Id is not X-User-Id
                continue
            self.META["HTTP_" + name.decode("latin-1").upper().replace("-", "_")] = value.decode("latin-1")


class GatewayMiddleware:
    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        try:
            found = await database_sync_to_async(GatewayAuthentication().authenticate)(Handshake(scope["headers"]))
        except AuthenticationFailed:
            await send({"type": "websocket.close"})  # before the handshake is accepted, so the client gets 403
            return
        user = found[0] if found else AnonymousUser()
        await self.inner({**scope, "user": user}, receive, send)
