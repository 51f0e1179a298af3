from django.urls import include, path
from oauth2_provider.urls import metadata_urlpatterns

from mysite import views

urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("", include((metadata_urlpatterns, "oauth2_provider"), namespace="metadata")),
    path("healthz", views.healthz),
]
