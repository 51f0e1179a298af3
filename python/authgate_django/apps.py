from importlib.util import find_spec

from django.apps import AppConfig
from django.conf import settings


class AuthgateConfig(AppConfig):
    name = "authgate_django"
    label = "authgate"
    verbose_name = "authgate"

    def ready(self) -> None:
        from authgate_django import checks, conf  # noqa: F401  registers the system checks

        # A mistake in the settings is reported by the checks, and by the first request.
        if conf.read(getattr(settings, "AUTHGATE", {}))[0].redis_url is not None and find_spec("redis"):
            from authgate_django.store import signals

            signals.connect()
