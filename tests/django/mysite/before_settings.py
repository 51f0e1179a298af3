"""The same project before the move: DRF and SimpleJWT verify the credentials themselves."""

from mysite.settings import *  # noqa: F403
from mysite.settings import REST_FRAMEWORK

REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework_simplejwt.authentication.JWTAuthentication",
    ],
}
