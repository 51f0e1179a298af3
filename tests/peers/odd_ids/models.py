from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models


class Member(AbstractBaseUser):
    id = models.CharField(primary_key=True, max_length=255)
    is_active = models.BooleanField(default=True)
    objects = models.Manager()

    USERNAME_FIELD = "id"
