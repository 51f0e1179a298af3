"""A user model with a UUID, an e-mail address in place of a username, and a column of its own."""

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class Member(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    tenant = models.CharField(max_length=40, db_column="tenant_code", default="acme")
    seats = models.IntegerField(default=3)
    beta = models.BooleanField(default=False)
    parent = models.UUIDField(null=True)

    USERNAME_FIELD = "email"
    objects = BaseUserManager()

    @property
    def username(self):  # what the view shows
        return self.email
