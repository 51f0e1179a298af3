"""What the commands for the store have in common."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from authgate_django import conf

UNUSABLE = 2  # the exit code if nothing could be compared or written


def settings() -> tuple[str, str, bytes | None]:
    """The URL, the prefix and the seal of the store. Raises `CommandError`."""
    try:
        config = conf.config()
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=UNUSABLE) from None
    if config.redis_url is None:
        raise CommandError('AUTHGATE in the settings has no "REDIS_URL".', returncode=UNUSABLE)
    return config.redis_url, config.prefix, config.seal
