from django.urls import path
from rest_framework.authtoken.views import obtain_auth_token

from . import views

urlpatterns = [
    path("api/token/", obtain_auth_token),
    path("api/me/", views.me),
]
