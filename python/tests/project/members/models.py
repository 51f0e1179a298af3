import uuid

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models


class Manager(BaseUserManager):
    def get_queryset(self):
        return super().get_queryset().filter(hidden=False)


class Member(AbstractBaseUser, PermissionsMixin):
    """Its key is a UUID, its username an address, and it has no column `is_active`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    address = models.EmailField(unique=True)
    hidden = models.BooleanField(default=False)
    USERNAME_FIELD = "address"
    EMAIL_FIELD = "address"
    objects = Manager()
