"""Writes all users and tokens to the gateway's store, and removes those that Django does not have."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from authgate_django.management.commands._store import UNUSABLE, settings

INTERVAL = 1.0  # seconds between two lines of progress


class Command(BaseCommand):
    help = (
        "Writes all users and tokens to the gateway's store in Redis, and removes users and tokens that Django does "
        "not have. Revoked tokens stay revoked. Gateways use an empty store once this command is complete."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep-unknown",
            action="store_true",
            help="keep users and tokens that Django does not have, such as those of `authgate token create`; "
            "those that were deleted in Django stay valid too",
        )
        parser.add_argument("--resume", metavar="POSITION", help="go on where an interrupted run has stopped")

    def handle(self, *args: Any, **options: Any) -> None:
        url, prefix, seal = settings()
        from authgate_django.store.client import COMMAND, StoreError, store
        from authgate_django.store.sync import Position, Refusal, Synchronization

        run = None
        try:
            resume = Position.parse(options["resume"]) if options["resume"] else None
            progress = self._progress if options["verbosity"] > 0 else lambda part, done, total: None
            run = Synchronization(store(url, prefix, COMMAND, seal), options["keep_unknown"], resume, progress)
            run.run()
            if run.was_empty and options["verbosity"] > 0:
                self.stderr.write(
                    "The store was empty. If it was flushed, its revocations are lost: import the last "
                    "`authgate token export`."
                )
        except Refusal as refusal:
            raise CommandError(str(refusal), returncode=UNUSABLE) from None
        except (StoreError, KeyboardInterrupt) as error:
            self._report(run, options["verbosity"])
            raise CommandError(f"{str(error) or 'interrupted'}.{_position(run)}", returncode=UNUSABLE) from None
        self._report(run, options["verbosity"])
        problems = {user: problem for done in run.done.values() for user, problem in done.problems.items()}
        for user, problem in problems.items():
            self.stderr.write(f"user {user} is not in the store: {problem}")
        if problems:
            raise CommandError(f"{len(problems)} users cannot be stored; the gateway refuses them.")

    _next = 0.0

    def _progress(self, part: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self.stderr.write(f"{part}: {done:,} of {total:,}")

    def _report(self, run: Any, verbosity: int) -> None:
        for part, done in run.done.items() if run and verbosity else ():
            counts = [("written", done.written), ("unchanged", done.unchanged), ("removed", done.removed)]
            counts += [("revoked and left so", done.revoked)] if done.revoked else []
            counts = counts[2:] if part == "unknown" else counts
            self.stdout.write(f"{part}: {', '.join(f'{count:,} {name}' for name, count in counts)}")


def _position(run: Any) -> str:
    return f" Go on with --resume {run.position}" if run and run.position else ""
