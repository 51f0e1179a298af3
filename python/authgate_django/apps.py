from django.apps import AppConfig


class AuthgateConfig(AppConfig):
    name = "authgate_django"
    label = "authgate"
    verbose_name = "authgate"

    def ready(self) -> None:
        from authgate_django import checks  # noqa: F401  registers the system checks
