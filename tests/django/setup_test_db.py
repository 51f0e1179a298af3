#!/usr/bin/env python3
"""Makes the database DJANGO_DB: tables, users, groups, DRF tokens; says on standard output what was made, as JSON.

The password of every user is DJANGO_TEST_PASSWORD. Running it again changes nothing but passwords and states.
"""

import json
import os
import secrets

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

import django

django.setup()

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from rest_framework.authtoken.models import Token

# Id 1 is an administrator: if a client's own `X-User-Id: 1` ever gets through, the answer greets root and not ada.
# The ids leave gaps and the groups are not in the order of the users, so that no number stands for another by luck.
USERS = [
    {"id": 1, "username": "root", "is_superuser": True, "is_staff": True, "groups": ["admins"]},
    {"id": 42, "username": "ada", "email": "ada@example.com", "groups": ["staff", "editors"]},
    {"id": 43, "username": "ben", "email": "ben@example.com", "is_active": False, "groups": ["staff"]},
    {"id": 44, "username": "zoë", "email": "zoe@example.com", "groups": ["équipe, nuit"]},  # Django allows both names
]


def main():
    password = os.environ.get("DJANGO_TEST_PASSWORD", "canary-correct-horse")
    call_command("migrate", verbosity=0)
    for name in ["editors", "admins", "équipe, nuit", "staff"]:
        Group.objects.get_or_create(name=name)
    made = {}
    for fields in USERS:
        fields = dict(fields)
        groups = fields.pop("groups")
        user, _ = User.objects.update_or_create(id=fields["id"], defaults=fields)
        user.set_password(password)
        user.save()
        user.groups.set(Group.objects.filter(name__in=groups))
        # A key as DRF makes them, 40 characters, but with a word in it that no log may ever show.
        key = f"canary-{user.pk}-{secrets.token_hex(20)}"[:40]
        token, _ = Token.objects.get_or_create(user=user, defaults={"key": key})
        made[user.username] = {"id": user.pk, "active": user.is_active, "groups": groups, "token": token.key}
    print(json.dumps({"users": made}))


if __name__ == "__main__":
    main()
