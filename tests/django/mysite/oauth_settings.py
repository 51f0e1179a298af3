"""The same project as an authorization server: django-oauth-toolkit issues opaque tokens, and introspects them."""

from mysite.settings import *  # noqa: F403
from mysite.settings import INSTALLED_APPS

ROOT_URLCONF = "mysite.oauth_urls"
INSTALLED_APPS = [*INSTALLED_APPS, "oauth2_provider"]
OAUTH2_PROVIDER = {"SCOPES": {"read": "Read", "write": "Write"}}
