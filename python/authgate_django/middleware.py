"""Middleware of Django, under WSGI and ASGI, for views beyond Django REST Framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse

from authgate_django.conf import config
from authgate_django.identity import Fields, Refused, Unavailable, identity, waits
from authgate_django.users import find_user


class GatewayMiddleware:
    """Sets `request.user`, and `request.authgate`: the `Identity`, or `None` for an anonymous request.

    It goes behind AuthenticationMiddleware if the project has that. An anonymous request keeps the user of its session.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        config()  # a mistake in the settings ends the start, not the first request
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        if self._is_async:
            return self._acall(request)
        return self._refusal(request) or self.get_response(request)

    async def _acall(self, request: HttpRequest) -> HttpResponse:
        # A thread for a look-up, and for keys that have to be fetched. Otherwise the fields are read right here.
        in_thread = config().users == "database" or waits(Fields.of(request))
        refused = await sync_to_async(self._refusal)(request) if in_thread else self._refusal(request)
        return refused or await self.get_response(request)

    def _refusal(self, request: Any) -> HttpResponse | None:
        """Sets the user; a response where the request is refused."""
        try:
            request.authgate = found = identity(Fields.of(request))
            if found is None:
                return None
            user = find_user(found)
        except Refused as refused:
            response = JsonResponse({"detail": str(refused)}, status=401)
            response["WWW-Authenticate"] = config().challenge
            return response
        except Unavailable:
            detail = "Service temporarily unavailable, try again later."
            return JsonResponse({"detail": detail}, status=503, headers={"Retry-After": "1"})
        request.user = user

        async def auser() -> Any:
            return user

        request.auser = auser
        # The credential was a header field, which no other site can make a browser send.
        request._dont_enforce_csrf_checks = True
        return None
