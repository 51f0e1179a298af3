"""Django behind the gateway: it verifies no credential itself."""

import os
from pathlib import Path

SECRETS = Path(os.environ.get("SECRETS", "/run/secrets"))


def secret(name):
    return (SECRETS / name).read_text()


SECRET_KEY = secret("django-key")
ALLOWED_HOSTS = ["*"]  # the gateway alone reaches this server, and decides about hosts
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "rest_framework.authtoken",
    "authgate_django",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "/data/db.sqlite3")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["authgate_django.authentication.GatewayAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
AUTHGATE = {
    "SECRET_HEADER": "X-Gateway-Secret",
    "SECRET": secret("gateway-secret"),
    "HEADERS": {"X-User-Groups": "groups", "X-Auth-Source": "authenticator"},
    "REDIS_URL": f"redis://app:{secret('redis-app')}@{os.environ.get('REDIS_HOST', 'redis')}:{os.environ.get('REDIS_PORT', '6379')}/0",
}
