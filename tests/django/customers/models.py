"""A user model with a text key, in a table and columns with names that have to be quoted."""

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Customer(AbstractBaseUser):
    code = models.CharField(primary_key=True, max_length=60, db_column="Customer Code")
    username = models.CharField(unique=True, max_length=60, db_column="Login Name")

    USERNAME_FIELD = "username"
    objects = BaseUserManager()

    class Meta:
        db_table = "Sales Customers"
