"""A project with most of what DRF offers: nested routers, actions, @api_view, i18n, classes of its own."""

from datetime import timedelta

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS

INSTALLED_APPS = [
    *(each for each in INSTALLED_APPS if each != "authgate_django"),
    "django.contrib.admin",
    "django.contrib.messages",
    "authgate_django",
]
del AUTHGATE  # noqa: F821
ROOT_URLCONF = "project.shop_urls"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LANGUAGE_CODE = "en"
USE_I18N = True
MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", "django.middleware.common.CommonMiddleware"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": "canary-signing-key-0123456789-0123456789",
    "ISSUER": "https://id.example.com",
    "AUDIENCE": ["orders", "app"],
    "LEEWAY": timedelta(seconds=30),
    "USER_ID_CLAIM": "sub",
    "JTI_CLAIM": None,
    "AUTH_HEADER_TYPES": ("Bearer", "JWT"),
}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "PASSWORD": "canary-database-password",
    }
}
