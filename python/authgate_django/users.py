"""The user of an identity: the row of the database, or an object made of the header fields alone."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import Model
from django.utils.functional import cached_property

from authgate_django.conf import config
from authgate_django.identity import Identity, Refused

log = logging.getLogger("authgate_django")

INACTIVE = "User inactive or deleted."


class GatewayUser:
    """A user made of the header fields, without a query. It has no permissions; `database_user` has them."""

    is_authenticated = True
    is_anonymous = False
    is_active = True  # the gateway has refused all others
    is_staff = False
    is_superuser = False

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.id = self.pk = identity.id
        self.username = identity.username
        self.email = identity.email
        self.groups = identity.groups  # names
        self.scopes = identity.scopes

    @cached_property
    def database_user(self) -> Any:
        """The row of the database; the first access is a query. Raises `Refused` if the user is missing or inactive."""
        return database_user(self.identity)

    def get_username(self) -> str:
        return self.username

    def has_perm(self, perm: str, obj: Model | None = None) -> bool:
        return False

    def has_perms(self, perm_list: list[str], obj: Model | None = None) -> bool:
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False

    def get_user_permissions(self, obj: Model | None = None) -> set[str]:
        return set()

    get_group_permissions = get_all_permissions = get_user_permissions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GatewayUser) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.username or self.id


def database_user(identity: Identity) -> Any:
    """The row whose `USER_LOOKUP` is exactly the id. Raises `Refused`."""
    settings = config()
    user_model = get_user_model()
    manager = user_model._default_manager
    try:
        users = list(manager.filter(**{settings.user_lookup: identity.id})[:2])
    except (ValueError, ValidationError):  # not an integer, not a UUID
        raise Refused(INACTIVE) from None
    if len(users) > 1:
        log.warning("an identity is refused: several users have the same %s", settings.user_lookup)
        raise Refused(INACTIVE)
    user = users[0] if users else None
    if user is None and settings.create_users:
        user = _create(identity)
    # int() reads "1_0" as 10, and some collations ignore case: another text is another user.
    if user is not None and str(getattr(user, settings.user_lookup)) != identity.id:
        raise Refused(INACTIVE)
    if user is None or not user.is_active:  # a field of most models, a plain attribute of AbstractBaseUser
        raise Refused(INACTIVE)
    return user


def _create(identity: Identity) -> Any:
    """A new user, or the one that another request has just made. Raises `Refused`."""
    lookup, model = config().user_lookup, get_user_model()
    if lookup != model.USERNAME_FIELD and not identity.username:
        log.warning("no user is created: the gateway sent no username")
        raise Refused(INACTIVE)
    try:
        return model._default_manager.get_or_create(**{lookup: identity.id}, defaults=_defaults(identity))[0]
    except (IntegrityError, model.MultipleObjectsReturned):
        log.warning("no user is created: another user has the same username, or the same %s", lookup)
        raise Refused(INACTIVE) from None


def _defaults(identity: Identity) -> dict[str, str]:
    """The facts for the columns of a new user."""
    model = get_user_model()
    columns = {model.USERNAME_FIELD: identity.username, model.get_email_field_name(): identity.email}
    known = {field.name for field in model._meta.get_fields()} - {config().user_lookup}
    found = {name: value for name, value in columns.items() if name in known and value}
    return {**found, "password": make_password(None)}  # unusable


def find_user(identity: Identity) -> Any:
    """The user, as `USERS` of the settings says. Raises `Refused`."""
    return GatewayUser(identity) if config().users == "headers" else database_user(identity)
