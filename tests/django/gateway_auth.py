"""Django REST Framework authentication for an application behind authgate. Copy this file into your project.

The gateway has judged the credential already and says in X-User-Id who is calling; whatever a client sends under that
name, in any spelling, it removes. None of this holds for a client that reaches Django past the gateway: bind the
application server to loopback or to a unix socket.

Not RemoteUserMiddleware: that one starts a session, asks for a CSRF token on POST, and creates users it does not know.
"""

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed


class GatewayAuthentication(BaseAuthentication):
    def authenticate(self, request):
        user_id = request.META.get("HTTP_X_USER_ID")
        if user_id is None:  # anonymous: a public route, or one with `optional = true`
            return None
        user_model = get_user_model()
        try:
            user = user_model.objects.get(pk=user_id, is_active=True)
        except (user_model.DoesNotExist, ValueError, ValidationError):  # the last two: not an integer, not a UUID
            raise AuthenticationFailed("User inactive or deleted.") from None
        # request.auth: the name of the authenticator that took the credential, if [identity] sends it as X-Auth-Source.
        return user, request.META.get("HTTP_X_AUTH_SOURCE")

    def authenticate_header(self, request):
        return "Token"  # without a challenge DRF would answer 403 in place of 401
