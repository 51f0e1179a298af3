"""Django REST Framework authentication for an application behind authgate. Copy this file into your project.

The gateway has verified the credential, and sends the user's id in X-User-Id. It removes this header from client requests, in
any spelling. A client that can reach Django directly can send the header itself. So do both:

- bind the application server to loopback or to a unix socket;
- give the gateway and Django the same secret: `secret_header` in gateway.toml, and in the settings of Django

      AUTHGATE = {"SECRET_HEADER": "X-Gateway-Secret", "SECRET": os.environ["GATEWAY_SECRET"]}

Do not use RemoteUserMiddleware in its place. That starts a session, requires a CSRF token on POST, and creates unknown users.
"""

from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed


def came_through_the_gateway(request):
    """Whether the request has the gateway's secret. Always true if the settings have no secret."""
    config = getattr(settings, "AUTHGATE", {})
    if "SECRET_HEADER" not in config and "SECRET" not in config:
        return True
    secret = config.get("SECRET")
    if not config.get("SECRET_HEADER") or not secret:
        raise ImproperlyConfigured("AUTHGATE needs SECRET_HEADER and SECRET, both with a value.")
    name = "HTTP_" + config["SECRET_HEADER"].upper().replace("-", "_")
    return constant_time_compare(request.META.get(name, ""), secret)


class GatewayAuthentication(BaseAuthentication):
    encoding = "percent"  # the `encoding` of [identity] in gateway.toml: "percent" (its default) or "utf8"

    def authenticate(self, request):
        value = request.META.get("HTTP_X_USER_ID")
        if value is None:  # anonymous: a public route, or one with `optional = true`
            return None
        if not came_through_the_gateway(request):
            raise AuthenticationFailed("The request did not come through the gateway.")
        user_model = get_user_model()
        try:
            user = user_model._default_manager.get(pk=self.decode(value))
            # The name of the authenticator that accepted the credential, if [identity] sends it as X-Auth-Source.
            source = self.decode(request.META.get("HTTP_X_AUTH_SOURCE", "")) or None
        except (user_model.DoesNotExist, ValueError, ValidationError):  # the last two: not an integer, not a UUID, not UTF-8
            raise AuthenticationFailed("User inactive or deleted.") from None
        if not user.is_active:  # a field of most user models, and a plain attribute of AbstractBaseUser
            raise AuthenticationFailed("User inactive or deleted.")
        return user, source  # request.user and request.auth

    def decode(self, value):
        """The text that the gateway has encoded. Application servers decode the bytes of a header as Latin-1."""
        encoded = value.encode("latin-1")
        return (unquote_to_bytes(encoded) if self.encoding == "percent" else encoded).decode()

    def authenticate_header(self, request):
        return "Token"  # the challenge of the route's first authenticator; without one, DRF would answer 403 instead of 401
