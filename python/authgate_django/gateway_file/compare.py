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
    hosts = list(dict.fromkeys(_host(route) for route in routes))  # in the order of the file
    upstreams: dict[str, None] = {}
    for place in places:
        path = place.path
        views = ", ".join(place.names)
        # A path below the prefix stands for all of them.
        sample = path[:-1] + "\0" if path.endswith("/*") else path
        # As in the gateway, a host with routes of its own never uses those without a host.
        by_host = {host: _chosen(sample, [each for each in routes if _host(each) == host]) for host in hosts}
        if not any(by_host.values()):
            missing.append(f"{path} has no route ({views})")
        for host, chosen in by_host.items():
            if not chosen:
                continue  # another application's host
            upstreams |= {str(route.get("upstream")): None for route in chosen}
            at = path if host is None else f"{path} of {host}"
            for method, access in place.access.items():
                for each in METHODS if method is None else [method]:
                    route = _for_method(chosen, each)
                    if route is None and (method is not None or each == "GET"):
                        missing.append(f"{at} has no route for {each} ({views})")
                    if route is None or method is None:
                        continue
                    strength = PUBLIC if route.get("public") else OPTIONAL if route.get("optional") else REQUIRED
                    if strength < min(access.strength, REQUIRED):
                        ours, theirs = NAMES[strength], NAMES[access.strength]
                        other.append(f"{each} {at} is {ours} in the file, and {theirs} in Django ({views})")
    return [*missing, *_identity(file, list(upstreams))], list(dict.fromkeys(other))


def _host(route: dict[str, Any]) -> str | None:
    host = route.get("host")
    return None if host is None else str(host).lower()


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


def _for_method(routes: list[dict[str, Any]], method: str) -> dict[str, Any] | None:
    """The route that lists the method, else the one for all methods, as the gateway chooses."""
    for route in routes:
        listed = route.get("methods") or []
        if method in listed or (method == "HEAD" and "GET" in listed):
            return route
    return next((route for route in routes if not route.get("methods")), None)


def _identity(file: dict[str, Any], upstreams: list[str]) -> list[str]:
    """The fields that Django trusts, and that these upstreams do not receive as Django reads them."""
    if "authgate_django" not in settings.INSTALLED_APPS:
        return []
    config = conf.config()
    if config.signed is not None:
        return _signed(config.signed, file, upstreams)
    common = file.get("identity", {}).get("headers", {"X-User-Id": "id", "X-User-Name": "username"})
    # An upstream's table without `headers` has those of [identity].
    own = {name: each.get("identity", {}).get("headers", common) for name, each in file.get("upstreams", {}).items()}
    removed = {name.lower() for table in [common, *own.values()] for name in table}  # from every request of a client
    problems = []
    for name, fact in {config.user_id_header: "id", **config.headers}.items():
        if name.lower() not in removed:
            problems.append(f"AUTHGATE reads {name} as {fact}, and no identity headers have it: clients could send it")
            continue
        for upstream in upstreams:
            table = {each.lower(): sent for each, sent in own.get(upstream, common).items()}
            sent = table.get(name.lower())
            if sent != fact:
                problems.append(f"AUTHGATE reads {name} as {fact}, and upstream {upstream} receives {sent or 'none'}")
    return problems


def _signed(expected: conf.Signed, file: dict[str, Any], upstreams: list[str]) -> list[str]:
    """How the tokens that these upstreams receive differ from those that Django accepts."""
    common = file.get("identity", {}).get("signed", False)
    problems = []
    for upstream in upstreams:
        own = file.get("upstreams", {}).get(upstream, {}).get("identity", {})
        signed = own.get("signed", common)
        if not signed:
            problems.append(f"AUTHGATE reads a signed identity, and upstream {upstream} receives none")
            continue
        sent = {
            "SIGNED_HEADER": signed.get("header", conf.SIGNED_HEADER),
            "ISSUER": signed.get("issuer", conf.ISSUER),
            "AUDIENCE": own.get("audience", upstream),
        }
        read = {"SIGNED_HEADER": expected.header, "ISSUER": expected.issuer, "AUDIENCE": expected.audience}
        for name, value in sent.items():
            same = value.lower() == read[name].lower() if name == "SIGNED_HEADER" else value == read[name]
            if not same:
                problems.append(f"{name} of AUTHGATE is {read[name]}, and upstream {upstream} has {value}")
    return problems
