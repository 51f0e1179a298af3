"""A project with a user model of its own. The environment says where its database and the store are."""

import os

from project.settings import *  # noqa: F403
from project.settings import AUTHGATE as COMMON
from project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "project.members"]
AUTH_USER_MODEL = "members.Member"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["MEMBERS_DB"],
        "OPTIONS": {"timeout": 60},  # seconds; several processes write
    }
}
AUTHGATE = {**COMMON, "REDIS_URL": os.environ["MEMBERS_REDIS"], "PREFIX": "members:"}
