from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from mysite import views
from mysite.urls import urlpatterns as api

urlpatterns = [
    *api,
    path("api/open/", views.anyone),
    path("api-auth/", include("rest_framework.urls")),
    path("admin/", admin.site.urls),
    path("static/<path:path>", serve, {"insecure": True}),  # WhiteNoise or a web server in a real project
]
