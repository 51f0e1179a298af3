"""A gateway.toml beside the routes that the project needs."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from authgate_django import conf
from authgate_django.gateway_file.routes import METHODS, Place
from authgate_django.gateway_file.views import NAMES, OPTIONAL, PUBLIC, REQUIRED


def compare(file: dict[str, Any], places: list[Place]) -> tuple[list[str], list[str]]:
    """What the file lacks, and what it decides in another way."""
    missing: list[str] = []
    other: list[str] = []
    routes = [route for route in file.get("routes", []) if isinstance(route, dict)]
    hosts = {route.get("host") for route in routes} or {None}
    for place in places:
        path = place.path
        views = ", ".join(place.names)
        # A path below the prefix stands for all of them.
        sample = path[:-1] + "\0" if path.endswith("/*") else path
        by_host = {
            host: _chosen(sample, [each for each in routes if each.get("host") in (host, None)]) for host in hosts
        }
        if not any(by_host.values()):
            missing.append(f"{path} has no route ({views})")
            continue
        for method, access in place.access.items():
            for each in METHODS if method is None else [method]:
                found = [route for chosen in by_host.values() for route in chosen if _takes(route, each)]
                if not found and (method is not None or each == "GET"):
                    missing.append(f"{path} has no route for {each} ({views})")
                for route in found[:1]:
                    strength = PUBLIC if route.get("public") else OPTIONAL if route.get("optional") else REQUIRED
                    if method is not None and strength < min(access.strength, REQUIRED):
                        ours, theirs = NAMES[strength], NAMES[access.strength]
                        other.append(f"{each} {path} is {ours} in the file, and {theirs} in Django ({views})")
    return [*missing, *_identity(file)], list(dict.fromkeys(other))


def _chosen(path: str, routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The routes of the exact path, else of the longest prefix, as the gateway chooses."""
    best: tuple[int, list[dict[str, Any]]] = (-1, [])
    for route in routes:
        written = str(route.get("path", ""))
        if written == path:
            rank = 1 << 30
        elif written.endswith("/*") and (path + "/").startswith(written[:-1]):
            rank = len(written)
        else:
            continue
        if rank > best[0]:
            best = (rank, [])
        if rank == best[0]:
            best[1].append(route)
    return best[1]


def _takes(route: dict[str, Any], method: str) -> bool:
    methods = route.get("methods")
    return methods is None or method in methods or (method == "HEAD" and "GET" in methods)


def _identity(file: dict[str, Any]) -> list[str]:
    """Fields that Django trusts and the gateway does not send: a client could send them."""
    if "authgate_django" not in settings.INSTALLED_APPS:
        return []
    config, _ = conf.read(getattr(settings, "AUTHGATE", {}))
    tables = [file.get("identity", {})]
    tables += [
        each["identity"] for each in file.get("upstreams", {}).values() if isinstance(each, dict) and "identity" in each
    ]
    default = {"X-User-Id": "id", "X-User-Name": "username"}
    sent = {name.lower(): fact for table in tables for name, fact in table.get("headers", default).items()}
    wanted = {config.user_id_header: "id", **config.headers}
    return [
        f"AUTHGATE reads {name} as {fact}, and [identity] headers does not send it: clients could"
        for name, fact in wanted.items()
        if sent.get(name.lower()) != fact
    ]
