"""A Django application with GatewayAuthentication of authgate-django and users of odd ids, served over WSGI or ASGI. Reads the ids from standard
input, a JSON list, and prints its port."""

import json
import os
import pathlib
import socket
import sys
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[2] / "python")]

import django
from django.conf import settings

folder = tempfile.TemporaryDirectory()
settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="canary-django-for-tests-only",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.marked"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework", "odd_ids"],
    AUTH_USER_MODEL="odd_ids.Member",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(folder.name, "db.sqlite3")}},
    AUTHGATE={"HEADERS": {"X-Auth-Source": "authenticator"}, "REQUIRE_SECRET": False},
    REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
)
django.setup()

from authgate_django.authentication import GatewayAuthentication
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.urls import path
from odd_ids.models import Member
from rest_framework.response import Response
from rest_framework.views import APIView


class Utf8(GatewayAuthentication):
    encoding = "utf8"


class Whoami(APIView):
    authentication_classes = [GatewayAuthentication]

    def get(self, request):
        return Response({"id": request.user.pk, "auth": request.auth.authenticator})


urlpatterns = [
    path("percent", Whoami.as_view()),
    path("utf8", Whoami.as_view(authentication_classes=[Utf8])),
]


def marked(get_response):
    """By this field the tests know an answer of an application."""

    def middleware(request):
        response = get_response(request)
        response["X-Upstream"] = "1"
        return response

    return middleware


def main():
    with connection.schema_editor() as editor:
        editor.create_model(Member)
    for user_id in json.loads(sys.stdin.readline()):
        Member.objects.create(id=user_id)
    connection.close()
    if sys.argv[1] == "wsgi":
        from wsgiref.simple_server import WSGIRequestHandler, make_server

        WSGIRequestHandler.log_message = lambda *words: None
        server = make_server("127.0.0.1", 0, get_wsgi_application())
        print(server.server_port, flush=True)
        server.serve_forever()
    else:
        import uvicorn

        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(get_asgi_application(), log_level="critical", lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


main()
