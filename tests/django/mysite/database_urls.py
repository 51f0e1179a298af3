from django.urls import path
from knox.auth import TokenAuthentication

from mysite.oracle_urls import WhoAmI, urlpatterns as oracle

urlpatterns = [
    *oracle,
    path("api/whoami/knox/", WhoAmI.as_view(authentication_classes=[TokenAuthentication])),
]
