import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.site_settings")
application = get_asgi_application()  # before what needs the settings

from authgate_django.channels import GatewayMiddleware
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path


class Hello(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept(self.scope["subprotocols"][0] if self.scope["subprotocols"] else None)
        await self.send_json({"user": self.scope["user"].get_username(), "subprotocols": self.scope["subprotocols"]})


application = ProtocolTypeRouter(
    {"http": application, "websocket": GatewayMiddleware(URLRouter([path("ws/hello/", Hello.as_asgi())]))}
)
