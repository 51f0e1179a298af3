"""Compares the gateway's store with the database of Django. Exit code 0: the same, 1: differences, 2: not compared."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from authgate_django.management.commands._store import UNUSABLE, settings


class Command(BaseCommand):
    help = (
        "Compares the gateway's store in Redis with users and tokens of Django, and writes nothing. "
        "Exit code 0: they are the same. 1: they differ, run authgate_sync. 2: they could not be compared."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep-unknown",
            action="store_true",
            help="report no users and tokens that Django does not have, as after authgate_sync --keep-unknown",
        )
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="show at most N differences")

    def handle(self, *args: Any, **options: Any) -> None:
        url, prefix, seal = settings()
        from authgate_django.store.client import COMMAND, StoreError, store
        from authgate_django.store.drift import Drift

        drift, count = Drift(store(url, prefix, COMMAND, seal), options["keep_unknown"]), 0
        try:
            for difference in drift.find():
                count += 1
                if count <= options["limit"]:
                    self.stdout.write(difference)
        except StoreError as error:
            raise CommandError(f"{error}.", returncode=UNUSABLE) from None
        if count:
            more = f" {count - options['limit']} are not shown." if count > options["limit"] else ""
            raise CommandError(f"{count} differences.{more} `manage.py authgate_sync` repairs them.")
        self.stdout.write(f"{drift.compared:,} users and tokens are the same in the store.")
