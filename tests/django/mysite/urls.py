from django.urls import path
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from mysite import views

urlpatterns = [
    path("api/hello/", views.hello),
    # Public routes of the gateway: these take a password or a refresh token, not an Authorization header.
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/token/refresh/", TokenRefreshView.as_view()),
    path("api/token-auth/", obtain_auth_token),
    path("healthz", views.healthz),
    path("upload", views.upload),
]
