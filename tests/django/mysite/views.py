import threading

from django.http import JsonResponse
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny
from rest_framework.response import Response

SOURCES = {"token": "Token", "jwt": "JWT"}  # names of the gateway's authenticators

calls = 0
counting = threading.Lock()


def count_requests(get_response):
    """Counts what reached Django, so that a test can say of a request that it did not."""

    def middleware(request):
        global calls
        if request.path != "/healthz":
            with counting:
                calls += 1
        return get_response(request)

    return middleware


@api_view(["GET", "POST"])
def hello(request):
    name = getattr(request.auth, "authenticator", None)  # before the move: a Token, or the claims
    source = SOURCES.get(name, name) if name else type(request.auth).__name__
    return Response(
        {
            "message": f"Hello, {request.user.get_username()}! You are authenticated with {source}.",
            "user": {"id": request.user.pk, "groups": [group.name for group in request.user.groups.all()]},
            "url": request.build_absolute_uri(),
            "headers": {name: value for name, value in request.META.items() if name.startswith("HTTP_")},
            "data": request.data,
            "calls": calls,
        }
    )


@api_view(["GET"])
@permission_classes([AllowAny])
def anyone(request):
    return Response({"user": request.user.get_username()})  # the empty text: AnonymousUser


def healthz(request):
    return JsonResponse({"status": "ok", "calls": calls})


def upload(request):
    return JsonResponse({"length": len(request.body)})
