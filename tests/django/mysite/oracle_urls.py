from django.http import JsonResponse
from django.urls import path
from rest_framework.authentication import TokenAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTAuthentication, JWTStatelessUserAuthentication

# DEFAULT_AUTHENTICATION_CLASSES as projects have them, and the names of the gateway's routes that stand for them.
CHAINS = {
    "token": [TokenAuthentication],
    "jwt": [JWTAuthentication],
    "stateless": [JWTStatelessUserAuthentication],
    "token-jwt": [TokenAuthentication, JWTAuthentication],
    "jwt-token": [JWTAuthentication, TokenAuthentication],
}


class WhoAmI(APIView):
    """Says who was authenticated. Texts, because a stateless user's id is whatever the claim is."""

    permission_classes = [IsAuthenticated]

    def get(self, request):
        return JsonResponse({"id": str(request.user.pk), "username": str(request.user.username)})


urlpatterns = [
    path(f"api/whoami/{name}/", WhoAmI.as_view(authentication_classes=classes)) for name, classes in CHAINS.items()
]
