"""The project before the move, on the database of DJANGO_DATABASE: a member of DATABASES, as JSON.

DJANGO_USER_MODEL names a user model: auth.User, members.Member or customers.Customer.
"""

import json
import os

from mysite.oracle_settings import *  # noqa: F403
from mysite.oracle_settings import INSTALLED_APPS

database = json.loads(os.environ["DJANGO_DATABASE"])
if database["ENGINE"].endswith("mysql"):
    # PyMySQL needs nothing compiled. Django wants the version of mysqlclient.
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
DATABASES = {"default": {**database, "CONN_MAX_AGE": None}}
ROOT_URLCONF = "mysite.database_urls"
INSTALLED_APPS = [*INSTALLED_APPS, "knox"]
AUTH_USER_MODEL = os.environ.get("DJANGO_USER_MODEL") or "auth.User"
if AUTH_USER_MODEL != "auth.User":
    INSTALLED_APPS = [*INSTALLED_APPS, AUTH_USER_MODEL.split(".")[0]]
