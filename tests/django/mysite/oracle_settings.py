"""The same project before the move: DRF and SimpleJWT judge the credentials themselves, without a gateway.

A test compares their answers with the gateway's. ORACLE_SIMPLE_JWT holds SIMPLE_JWT as JSON; ORACLE_BLACKLIST, if it is
not empty, installs SimpleJWT's blacklist.
"""

import json
import logging
import os

from mysite.settings import *  # noqa: F403
from mysite.settings import DATABASES, INSTALLED_APPS

ROOT_URLCONF = "mysite.oracle_urls"
MIDDLEWARE = []
SIMPLE_JWT = json.loads(os.environ.get("ORACLE_SIMPLE_JWT", "{}"))
if os.environ.get("ORACLE_BLACKLIST"):
    INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework_simplejwt.token_blacklist"]
DATABASES["default"]["CONN_MAX_AGE"] = None

# Many requests of that test crash SimpleJWT; that is what it looks for, and no traceback of them says anything new.
LOGGING_CONFIG = None
logging.getLogger("django").setLevel(logging.CRITICAL + 1)
