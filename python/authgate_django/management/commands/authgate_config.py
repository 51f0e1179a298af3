"""`manage.py authgate_config`: gateway.toml from the settings and the URLconf."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from authgate_django import conf
from authgate_django.gateway_file import routes
from authgate_django.gateway_file.authenticators import Authenticators
from authgate_django.gateway_file.compare import compare
from authgate_django.gateway_file.render import Options, render


class Command(BaseCommand):
    help = (
        "Writes the gateway's configuration, made from the settings and the URLconf, to standard output. "
        "With --diff, compares a file with them: exit code 1 if a view has no route in it."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--diff", metavar="FILE", help="compare this gateway.toml, and write nothing")
        parser.add_argument("--server", default=Options.server, help="the application server (%(default)s)")
        parser.add_argument("--store", choices=["redis", "embedded"], default=Options.store, help="(%(default)s)")
        parser.add_argument(
            "--no-suffixes",
            action="store_true",
            help="no routes for paths such as /orders.json, which DRF's DefaultRouter makes",
        )
        parser.add_argument(
            "--staff-group",
            default=Options.staff_group,
            help="the group that IsAdminUser requires at the gateway (%(default)s); empty: none, Django alone decides",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            conf.config()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        authenticators = Authenticators()
        places = routes.find(authenticators, suffixes=not options["no_suffixes"])
        if options["diff"] is None:
            chosen = Options(options["server"], options["store"], options["staff_group"])
            self.stdout.write(render(places, authenticators, chosen), ending="")
            return
        missing, other = compare(_read(Path(options["diff"])), places)
        for line in other:
            self.stderr.write(f"note: {line}")
        for line in missing:
            self.stdout.write(line)
        if missing:
            sys.exit(1)


def _read(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise CommandError("--diff needs Python 3.11 or later, which can read TOML.") from None
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from None
