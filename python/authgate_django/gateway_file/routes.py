"""Routes for all views of the URLconf: the narrowest path for each, the stricter policy where one covers several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.conf import settings
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver
from django.urls.resolvers import LocalePrefixPattern
from django.utils import translation

from authgate_django.gateway_file.authenticators import Authenticators
from authgate_django.gateway_file.patterns import MOST, REST, Any_, Shape, Tokens, expand, with_formats
from authgate_django.gateway_file.views import NAMES, PUBLIC, Access, View, read

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass
class Place:
    """Everything that is served at one path of routes."""

    path: str
    # By method; `None` stands for all methods. Each view with its own policy.
    views: dict[str | None, list[tuple[View, Access]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, view: View, note: str | None = None) -> None:
        """One view more."""
        theirs = {method: [(view, access)] for method, access in view.access.items()}
        if self.views and (None in self.views) != (None in theirs):
            self.views, theirs = _listed(self.views), _listed(theirs)
        for method, pairs in theirs.items():
            known = self.views.setdefault(method, [])
            known += [pair for pair in pairs if all(pair[0] is not view for view, _ in known)]
        if note and note not in self.notes:
            self.notes.append(note)

    @property
    def access(self) -> dict[str | None, Access]:
        """The strictest policy of each method."""
        found = {}
        for method, pairs in self.views.items():
            access = pairs[0][1]
            for _, other in pairs[1:]:
                access = access.stricter(other)
            found[method] = access
        return found

    @property
    def names(self) -> list[str]:
        """Of its views."""
        return list(dict.fromkeys(view.name for pairs in self.views.values() for view, _ in pairs))

    @property
    def is_drf(self) -> bool:
        return any(view.is_drf for pairs in self.views.values() for view, _ in pairs)

    def remarks(self) -> list[str]:
        """The notes, and which views are reached less easily than in Django."""
        raised: dict[tuple[str, int, int], list[str]] = {}
        for method, access in self.access.items():
            for view, own in self.views[method]:
                if own.strength < access.strength:
                    raised.setdefault((view.name, own.strength, access.strength), []).append(method or "every method")
        return self.notes + [
            f"stricter than Django: {', '.join(dict.fromkeys(methods))} of {name} is {NAMES[before]} there and "
            f"{NAMES[after]} here, because the path covers a stricter view"
            for (name, before, after), methods in raised.items()
        ]

    def groups(self) -> list[tuple[list[str] | None, Access]]:
        """The routes of this path: methods of the same policy together."""
        found: dict[Access, list[str | None]] = {}
        by_method = self.access
        for method, access in by_method.items():
            found.setdefault(access, []).append(method)
        routes = []
        for access, methods in found.items():
            why = frozenset().union(*(by_method[method].why for method in methods))
            whole = Access(access.strength, access.authenticators, access.challenge, access.keep, why)
            listed = None if None in methods else sorted((each for each in methods if each is not None), key=_order)
            routes.append((listed, whole))
        return routes

    @property
    def folder(self) -> str | None:
        """The prefix without `/*`; `None` for an exact path."""
        return self.path[:-2] if self.path.endswith("/*") else None


T = TypeVar("T")


def _listed(found: dict[str | None, list[T]]) -> dict[str | None, list[T]]:
    return {method: list(found[None]) for method in METHODS} if None in found else found


def _order(method: str) -> int:
    return METHODS.index(method) if method in METHODS else len(METHODS)


@dataclass
class Leaf:
    """A view at one of its paths."""

    shape: Shape
    view: View
    callback: Any


def find(authenticators: Authenticators, suffixes: bool = True) -> list[Place]:
    """All places, those of redundant routes left out; in the order of their paths."""
    resolver = get_resolver()
    kwarg = (getattr(settings, "REST_FRAMEWORK", None) or {}).get("FORMAT_SUFFIX_KWARG", "format")
    leaves: list[Leaf] = []
    places: dict[str, Place] = {}
    views: dict[int, View] = {}  # one for each callback, which the URLconf keeps alive
    for language in _languages(resolver):
        with translation.override(language):
            for callback, tokens in _walk(resolver, [()]):
                view = views.setdefault(id(callback), read(callback, authenticators))
                for each in with_formats(tokens, view.formats if suffixes else (), kwarg) if view.is_drf else [tokens]:
                    leaf = Leaf(Shape(each), view, callback)
                    path = leaf.shape.pattern()
                    if not path.endswith("/*") and not _serves(resolver, path, callback):
                        continue  # an earlier pattern of the URLconf takes the path
                    leaves.append(leaf)
                    places.setdefault(path, Place(path)).add(view)
    _cover(places, leaves, resolver)
    _slashes(places)
    _files(places)
    return _needed(places)


def _languages(resolver: URLResolver) -> list[str | None]:
    """The languages whose URLs differ; one that stands for all if none do."""
    if any(_is_translated(pattern) for pattern in _all_patterns(resolver)):
        return [code for code, _ in settings.LANGUAGES]
    return [settings.LANGUAGE_CODE]


def _all_patterns(resolver: URLResolver) -> Iterator[Any]:
    for each in resolver.url_patterns:
        yield each.pattern
        if isinstance(each, URLResolver):
            yield from _all_patterns(each)


def _is_translated(pattern: Any) -> bool:
    written = getattr(pattern, "_route", None) or getattr(pattern, "_regex", "")
    return isinstance(pattern, LocalePrefixPattern) or not isinstance(written, str)


def _walk(resolver: URLResolver, before: list[Tokens]) -> Iterator[tuple[Any, Tokens]]:
    for each in resolver.url_patterns:
        alternatives = expand(each.pattern, isinstance(each, URLPattern))
        joined = [_join(left, right) for left in before for right in alternatives]
        joined = list(dict.fromkeys(joined)) if len(joined) <= MOST else [(REST,)]
        if isinstance(each, URLResolver):
            yield from _walk(each, joined)
        else:
            for tokens in joined:
                yield each.callback, tokens


def _join(left: Tokens, right: Tokens) -> Tokens:
    """Both, with neighbouring texts as one."""
    found: list[str | Any_] = []
    for token in (*left, *right):
        if isinstance(token, str) and found and isinstance(found[-1], str):
            found[-1] += token
        elif token != "":
            found.append(token)
    return tuple(found)


def _serves(resolver: URLResolver, path: str, callback: Any) -> bool:
    try:
        return resolver.resolve(path).func is callback
    except Resolver404:
        return False


def _cover(places: dict[str, Place], leaves: list[Leaf], resolver: URLResolver) -> None:
    """A longer prefix also receives requests of views whose own path is shorter: `<slug>/` beside `orders/<id>/`."""
    for place in list(places.values()):
        if not place.folder:
            continue
        for leaf in leaves:
            own = leaf.shape.pattern()
            if not (own.endswith("/*") and own != place.path and place.path.startswith(own[:-1])):
                continue
            if leaf.shape.reaches_below(place.folder, itself=False):
                place.add(leaf.view, f"{leaf.view.name} ({own}) can be reached below this path too")
            elif leaf.shape.reaches_below(place.folder, itself=True):  # one path: it gets a route of its own
                for path in (place.folder, place.folder + "/"):
                    if _serves(resolver, path, leaf.callback):
                        places.setdefault(path, Place(path)).add(leaf.view)


def _slashes(places: dict[str, Place]) -> None:
    """CommonMiddleware redirects `/a` to `/a/`. And a prefix must not serve `/a` more easily than `/a/`."""
    middleware = "django.middleware.common.CommonMiddleware"
    redirects = settings.APPEND_SLASH and middleware in settings.MIDDLEWARE
    for place in list(places.values()):
        path = place.path.removesuffix("/")
        if place.folder is not None or path in ("", place.path) or path in places:
            continue
        redirected = redirects and ("GET" in place.views or None in place.views)  # a redirect loses the body of a POST
        if redirected or _parent(path, places) is not None:
            note = "APPEND_SLASH redirects it" if redirected else "some servers take it for the path with a slash"
            places[path] = Place(path, dict(place.views), [note])


def _files(places: dict[str, Place]) -> None:
    for name in ("STATIC_URL", "MEDIA_URL"):
        url = getattr(settings, name, None)
        if isinstance(url, str) and url.startswith("/") and len(url) > 1:
            path = url.rstrip("/") + "/*"
            if path not in places:
                why = frozenset([f"{name}: files, from Django (WhiteNoise) or from the server that has them"])
                places.setdefault(path, Place(path)).add(View(name, {None: Access(PUBLIC, why=why)}))


def _parent(path: str, places: dict[str, Place]) -> Place | None:
    """The longest prefix that would match if the path had no routes of its own."""
    folder = path.removesuffix("/*").rstrip("/") if path.endswith("/*") else path
    parts = folder.split("/")
    if path.endswith("/*"):
        parts = parts[:-1]
    while parts:
        found = places.get("/".join(parts) + "/*")
        if found is not None and found.path != path:
            return found
        parts.pop()
    return None


def _needed(places: dict[str, Place]) -> list[Place]:
    """Without those that a shorter prefix serves in just the same way."""
    kept = []
    for path in sorted(places):
        place, parent = places[path], _parent(path, places)
        if parent is None or parent.access != place.access or parent.is_drf != place.is_drf:
            kept.append(place)
        else:
            for method, pairs in place.views.items():
                parent.views[method] += [pair for pair in pairs if pair not in parent.views[method]]
    return kept
