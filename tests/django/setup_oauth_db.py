#!/usr/bin/env python3
"""Registers the clients of django-oauth-toolkit in the database that setup_test_db.py has made.

`gateway` introspects tokens. `shop` gets them: for users by their passwords, and `robot` for itself.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.oauth_settings")

import django

django.setup()

from oauth2_provider.models import Application

CLIENTS = [
    ("gateway", Application.GRANT_CLIENT_CREDENTIALS),
    ("robot", Application.GRANT_CLIENT_CREDENTIALS),
    ("shop", Application.GRANT_PASSWORD),
]


def main():
    for name, grant in CLIENTS:
        Application.objects.create(
            client_id=name,
            client_secret=f"canary-{name}-secret",
            client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=grant,
            name=name,
        )


if __name__ == "__main__":
    main()
