"""The rows of Django that become records: users with their groups, and the tokens of authtoken and knox."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models, router

from authgate_django.store.records import DIGEST, Keys, Record, Unstorable, is_user_id, password_md5, seconds, text


def database(model: type[models.Model]) -> str:
    """Where the rows are: the database that is written, because a replica may be late."""
    return router.db_for_write(model)


def rows_of(model: type[models.Model]) -> models.QuerySet[Any]:
    """All rows. As DRF follows the foreign key of a token, the default manager does not hide any."""
    return model._base_manager.using(database(model))


def primary_keys(model: type[models.Model], size: int, by: str = "pk", after: Any = None) -> Iterator[tuple[list, Any]]:
    """The primary keys in chunks, in the order of a unique column, and its value in the last row of each chunk."""
    while True:
        query = rows_of(model).order_by(by).values_list("pk", by)
        found = list((query if after is None else query.filter(**{f"{by}__gt": after}))[:size])
        if not found:
            return
        after = found[-1][1]
        yield [key for key, _ in found], after


def _field(model: type[models.Model], name: str) -> Any:
    try:
        return model._meta.get_field(name)
    except FieldDoesNotExist:
        return None


class Users:
    """The user model, whatever it is."""

    def __init__(self) -> None:
        model: Any = get_user_model()
        self.model = model
        columns = {field.name for field in model._meta.concrete_fields}
        self.name_field: str = model.USERNAME_FIELD
        email = model.get_email_field_name() if hasattr(model, "get_email_field_name") else "email"
        self.email_field = email if email in columns else None
        # Without the column, the record keeps what other programs wrote.
        self.active_field = "is_active" if "is_active" in columns else None
        self.password_field = "password" if "password" in columns else None
        groups = _field(model, "groups")
        is_named = isinstance(groups, models.ManyToManyField) and _field(groups.related_model, "name") is not None
        self.groups: Any = groups if is_named else None

    @property
    def fields(self) -> set[str]:
        """Those that a record is made of."""
        named = (self.name_field, self.email_field, self.active_field, self.password_field)
        return {name for name in named if name is not None}

    def id_of(self, key: Any) -> str:
        """The id of the user with this primary key: `str(user.pk)`, also if the key is text that a form sent."""
        try:
            return str(self.model._meta.pk.to_python(key))
        except ValidationError:
            return str(key)

    def key_of(self, user_id: str) -> Any:
        """`None`: no user can have this id."""
        try:
            key = self.model._meta.pk.to_python(user_id)
        except ValidationError:
            return None
        return key if str(key) == user_id else None

    def read(self, ids: Collection[str]) -> dict[str, Record | Unstorable]:
        """The members of the users that exist, or why they cannot be stored."""
        keys = [key for key in map(self.key_of, ids) if key is not None]
        if not keys:
            return {}
        here = rows_of(self.model).filter(pk__in=keys)
        groups: dict[Any, list[str]] = {}
        if self.groups is not None:
            members = here.filter(groups__isnull=False).order_by("pk", "groups__pk").values_list("pk", "groups__name")
            for key, name in members:
                groups.setdefault(key, []).append(name)
        found: dict[str, Record | Unstorable] = {}
        for row in here.values("pk", *self.fields):
            try:
                found[str(row["pk"])] = self._members(row, groups.get(row["pk"], []))
            except Unstorable as problem:
                found[str(row["pk"])] = problem
        return {user_id: found[user_id] for user_id in ids if user_id in found}

    def _members(self, row: dict[str, Any], groups: list[str]) -> Record:
        if not is_user_id(str(row["pk"])):
            raise Unstorable("its id is not 1 to 255 bytes without control characters and outer blanks")
        members: Record = {"id": str(row["pk"]), "username": text("username", row[self.name_field])}
        if self.email_field is not None:
            members["email"] = text("email", row[self.email_field])
        if self.groups is not None:
            members["groups"] = [name for name in (text("group's name", each) for each in groups) if name]
        if self.active_field is not None:
            members["active"] = bool(row[self.active_field])
        if self.password_field is not None:
            password = row[self.password_field]
            members["password_md5"] = None if password is None else password_md5(password)
        return members


@dataclass(frozen=True)
class Tokens:
    """A table of tokens. Its primary key is the token's key (authtoken), or the digest of it (knox)."""

    model: type[models.Model]
    is_knox: bool

    @property
    def order(self) -> str:
        """A unique column. The primary key of authtoken is the credential, which no message may have."""
        return "pk" if self.is_knox else "user_id"

    def digest(self, key: str) -> str:
        return key if self.is_knox else hashlib.sha256(key.encode()).hexdigest()

    def read(self, keys: Collection[str], users: Users) -> dict[str, Record]:
        """By digest: the members of the tokens that exist."""
        exact = set(keys)  # some collations ignore case
        rows = self._rows(rows_of(self.model).filter(pk__in=exact), users)
        return {digest: members for key, digest, members in rows if key in exact}

    def find(self, names: Collection[str], user_ids: Collection[str], users: Users, keys: Keys) -> set[str]:
        """Which of these names of tokens have a row. Where the database does not have the name, the row is found by
        the user that the record names."""
        if self.is_knox and not keys.is_sealed:
            rows = rows_of(self.model).filter(pk__in=names)
        else:
            owners = [key for key in map(users.key_of, user_ids) if key is not None]
            rows = rows_of(self.model).filter(user__in=owners)
        return {keys.name(digest) for _, digest, _ in self._rows(rows, users)}

    def _rows(self, query: models.QuerySet[Any], users: Users) -> Iterator[tuple[str, str, Record]]:
        names = ["pk", "user_id", "created"] + (["expiry"] if self.is_knox else [])
        for row in query.values(*names):
            digest = self.digest(row["pk"])
            if not DIGEST.match(digest):
                continue  # salted, by knox before 4.2
            members: Record = {"user": users.id_of(row["user_id"]), "created": seconds(row["created"])}
            if self.is_knox:
                members["expires"] = seconds(row["expiry"])
            yield row["pk"], digest, members


def token_tables() -> Sequence[Tokens]:
    """Those of the installed apps."""
    found = []
    if apps.is_installed("rest_framework.authtoken"):
        found.append(Tokens(apps.get_model("authtoken", "Token"), is_knox=False))
    if apps.is_installed("knox"):
        from knox.models import get_token_model

        found.append(Tokens(get_token_model(), is_knox=True))
    return found
