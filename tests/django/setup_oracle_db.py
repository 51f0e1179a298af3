#!/usr/bin/env python3
"""Makes the database DJANGO_DB for mysite.oracle_settings from JSON on standard input:

{"users": [{"id": 42, "username": "ada", "is_active": true, "password": "stored hash", "token": "key"}], "blacklisted": ["jti"]}
"""

import json
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.oracle_settings")
os.environ["ORACLE_BLACKLIST"] = "1"

import django

django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.utils import timezone
from rest_framework.authtoken.models import Token
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

call_command("migrate", verbosity=0)
wanted = json.load(sys.stdin)
for fields in wanted["users"]:
    key = fields.pop("token")
    Token.objects.create(user=User.objects.create(**fields), key=key)
for jti in wanted["blacklisted"]:
    token = OutstandingToken.objects.create(jti=jti, token="", expires_at=timezone.now())
    BlacklistedToken.objects.create(token=token)
