"""The authentication class for Django REST Framework."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed

from authgate_django.conf import config
from authgate_django.identity import Fields, Identity, Refused, Unavailable, identity
from authgate_django.users import find_user


class KeysUnavailable(APIException):
    """The application cannot verify the identity at the moment."""

    status_code = 503
    default_detail = "Service temporarily unavailable, try again later."
    default_code = "service_unavailable"


class GatewayAuthentication(BaseAuthentication):
    """`request.user` is the user whose id the gateway sends, `request.auth` the `Identity`. It starts no session.

    With signed identity, `request.auth` is the claims of the token too: `request.auth["sub"]`.
    """

    encoding: str | None = None  # of [identity] in gateway.toml, if views differ; otherwise ENCODING of the settings

    def authenticate(self, request: Any) -> tuple[Any, Identity] | None:
        try:
            found = identity(Fields.of(request), self.encoding)
            if found is None:
                return None
            return self.get_user(found), found
        except Refused as refused:
            raise AuthenticationFailed(str(refused)) from None
        except Unavailable:
            raise KeysUnavailable from None

    def get_user(self, identity: Identity) -> Any:
        """The user of this identity. Override it for other rules; raise `Refused` where there is none."""
        return find_user(identity)

    def authenticate_header(self, request: Any) -> str:
        return config().challenge  # without one, DRF would answer 403 instead of 401
