"""A small DRF project as one finds them, moved behind authgate. It exists for the tests: its secrets are not secret."""

import os
from pathlib import Path

SECRET_KEY = "canary-django-for-tests-only"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "*").split(",")  # which hosts exist is the gateway's routes to say, and the tests try several
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "rest_framework",
    "rest_framework.authtoken",
    "authgate_django",
]
MIDDLEWARE = ["mysite.views.count_requests", "django.middleware.common.CommonMiddleware"]

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_DB"]}}

# TLS ends at the gateway; this makes request.is_secure() and absolute URLs tell the truth.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# The tests log in often, and real hashers are slow on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

REST_FRAMEWORK = {
    # Before the move: TokenAuthentication and JWTAuthentication, in this order. Now the gateway does their work.
    "DEFAULT_AUTHENTICATION_CLASSES": ["authgate_django.authentication.GatewayAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

# The fields that [identity] of the gateway sends. Never without a secret, except in a test like these.
AUTHGATE = {"HEADERS": {"X-Auth-Source": "authenticator"}, "REQUIRE_SECRET": False}
if os.environ.get("GATEWAY_SECRET"):
    AUTHGATE = {
        "HEADERS": {"X-Auth-Source": "authenticator"},
        "SECRET_HEADER": "X-Gateway-Secret",
        "SECRET": os.environ["GATEWAY_SECRET"],
    }

# Django still signs the tokens, the gateway verifies them: both have the secret, as bytes, without a trailing newline.
JWT_SECRET_FILE = os.environ.get("DJANGO_JWT_SECRET_FILE")
JWT_SECRET = Path(JWT_SECRET_FILE).read_bytes() if JWT_SECRET_FILE else b"canary-jwt-secret-of-at-least-32-bytes"

SIMPLE_JWT = {"ALGORITHM": "HS256", "SIGNING_KEY": JWT_SECRET}
