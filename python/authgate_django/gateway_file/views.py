"""The policy of one view, method by method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from authgate_django.gateway_file.authenticators import Authenticators

# Strength of a policy; a greater one refuses more.
PUBLIC, OPTIONAL, REQUIRED, STAFF = range(4)
NAMES = {
    PUBLIC: "public",
    OPTIONAL: "optional",
    REQUIRED: "authenticated",
    STAFF: "authenticated, staff",
}
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Access:
    """What a route lets pass."""

    strength: int
    authenticators: tuple[str, ...] = ()
    challenge: bool = True
    keep: bool = False  # another authentication of Django's reads Authorization
    why: frozenset[str] = field(default=frozenset(), compare=False)

    def stricter(self, other: Access) -> Access:
        """The access of a route for both."""
        why = self.why | other.why
        high, low = (self, other) if self.strength >= other.strength else (other, self)
        names = high.authenticators
        if high.strength > PUBLIC and low.strength > PUBLIC and names != low.authenticators:
            both = tuple(name for name in names if name in low.authenticators)
            names = both or names
            why |= {f"its views take different credentials: only {', '.join(names)} pass"}
        return Access(high.strength, names, high.challenge, high.keep or low.keep, why)


@dataclass
class View:
    """A view of the URLconf."""

    name: str
    # By method; `None` stands for all methods of a view that is not DRF's.
    access: dict[str | None, Access]
    formats: tuple[str, ...] | None = None
    is_drf: bool = False


def read(callback: Callable[..., Any], authenticators: Authenticators) -> View:
    cls = getattr(callback, "cls", None)
    name = _name(callback)
    if cls is None or not _is_drf(cls):
        why = frozenset(["not a view of Django REST Framework: Django decides"])
        return View(name, {None: Access(PUBLIC, why=why)})
    init = getattr(callback, "initkwargs", None) or getattr(callback, "view_initkwargs", None) or {}
    actions = getattr(callback, "actions", None)
    access: dict[str | None, Access] = {}
    for method in _methods(cls, init, actions):
        view = _instance(cls, init, actions, method)
        access[method] = _access(view, method, authenticators)
    if "GET" in access:
        access.pop("HEAD", None)  # GET covers it
    return View(name, access, _formats(cls, init), is_drf=True)


def _formats(cls: Any, init: dict[str, Any]) -> tuple[str, ...] | None:
    """The suffixes that the view renders; `None` if code of the project decides."""
    from rest_framework.negotiation import DefaultContentNegotiation
    from rest_framework.views import APIView

    negotiation = init.get("content_negotiation_class", cls.content_negotiation_class)
    if negotiation is not DefaultContentNegotiation or cls.get_renderers is not APIView.get_renderers:
        return None
    renderers = init.get("renderer_classes", cls.renderer_classes)
    return tuple(dict.fromkeys(str(each.format) for each in renderers if getattr(each, "format", None)))


def _is_drf(cls: Any) -> bool:
    try:
        from rest_framework.views import APIView
    except ImportError:  # a project without DRF
        return False
    return isinstance(cls, type) and issubclass(cls, APIView)


def _name(callback: Callable[..., Any]) -> str:
    cls = getattr(callback, "cls", None) or getattr(callback, "view_class", None)
    if cls is not None:  # the class of @api_view has the name of its function
        return f"{cls.__module__}.{cls.__name__}"
    return f"{getattr(callback, '__module__', '')}.{getattr(callback, '__qualname__', type(callback).__qualname__)}"


def _methods(cls: Any, init: dict[str, Any], actions: dict[str, str] | None) -> list[str]:
    allowed = init.get("http_method_names", cls.http_method_names)
    if actions is None:
        return [name.upper() for name in allowed if hasattr(cls, name) and name != "trace"]
    return [name.upper() for name in allowed if name in actions or name == "options"]


def _instance(cls: Any, init: dict[str, Any], actions: dict[str, str] | None, method: str) -> Any:
    from rest_framework.request import Request

    http = HttpRequest()
    http.method = method
    request = Request(http, authenticators=())
    request.user = AnonymousUser()
    view = cls(**init)
    view.request, view.args, view.kwargs, view.format_kwarg = request, (), {}, None
    if actions is not None:
        view.action_map = actions
        view.action = actions.get(method.lower(), "metadata" if method == "OPTIONS" else None)
    return view


def _access(view: Any, method: str, authenticators: Authenticators) -> Access:
    why: set[str] = set()
    try:
        classes = [type(each) for each in view.get_authenticators()]
    except Exception as error:  # code of the project
        why.add(f"get_authenticators() failed without a request ({type(error).__name__})")
        classes = list(view.authentication_classes)
    try:
        permissions = list(view.get_permissions())
        known = True
    except Exception as error:
        why.add(f"get_permissions() failed without a request ({type(error).__name__}): Django goes on deciding")
        permissions, known = [], False
    strength = _all(permissions, method, why) if known else REQUIRED
    if not classes:
        return Access(PUBLIC, why=frozenset(why | {"authentication_classes = []"}))
    names, others = authenticators.of(classes)
    if not names:
        return Access(PUBLIC, why=frozenset(why | {f"authenticated by Django: {', '.join(others)}"}))
    if others and strength > OPTIONAL:
        why.add(f"optional, because {', '.join(others)} of Django authenticates requests without such a credential")
        strength = OPTIONAL
    try:
        challenge = bool(classes[0]().authenticate_header(view.request))
    except Exception:
        challenge = True
    keep = any("Session" not in other for other in others)
    return Access(strength, names, challenge, keep, frozenset(why))


def _all(permissions: list[Any], method: str, why: set[str]) -> int:
    """The strength of permissions that must all be met."""
    found = [_one(each, method, why) for each in permissions]
    if not permissions:
        why.add("permission_classes = []")
    judged = [each for each in found if each is not None]
    if found and not judged:
        names = ", ".join(type(each).__name__ for each in permissions)
        why.add(
            f"{names} decides on objects, and Django goes on deciding; "
            "`optional = true` if requests without a credential may read"
        )
        return REQUIRED
    return max(judged, default=OPTIONAL)


def _one(permission: Any, method: str, why: set[str]) -> int | None:
    """The strength of one permission; `None` if it decides on objects only."""
    from rest_framework import permissions as drf

    kind = type(permission)
    if kind is getattr(drf, "AND", None):
        return _all([permission.op1, permission.op2], method, why)
    if kind is getattr(drf, "OR", None):
        both = [_one(each, method, why) for each in (permission.op1, permission.op2)]
        return min(OPTIONAL if each is None else each for each in both)
    check = getattr(kind, "has_permission", None)
    if check is drf.BasePermission.has_permission:
        return None
    label = kind.__name__
    if check is drf.AllowAny.has_permission:
        strength = OPTIONAL
    elif check is drf.IsAuthenticated.has_permission:
        strength = REQUIRED
    elif check is drf.IsAdminUser.has_permission:
        strength = STAFF
    elif check is drf.IsAuthenticatedOrReadOnly.has_permission:
        strength = OPTIONAL if method in SAFE else REQUIRED
    elif check is drf.DjangoModelPermissions.has_permission:
        strength = REQUIRED if permission.authenticated_users_only or method not in SAFE else OPTIONAL
        label += ", Django goes on deciding"
    else:
        strength = REQUIRED
        label += ": code of the project, so Django goes on deciding; "
        label += "`optional = true` if requests without a credential may pass"
    why.add(label)
    return strength
