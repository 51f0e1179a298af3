from django.http import HttpRequest, JsonResponse
from django.urls import path
from rest_framework.response import Response
from rest_framework.views import APIView


class WhoAmI(APIView):
    def get(self, request):
        auth = request.auth
        return Response({"user": str(request.user), "auth": auth and auth.authenticator})


def page(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": str(request.user), "session": request.session.session_key})


async def async_page(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": str(await request.auser())})


urlpatterns = [path("whoami", WhoAmI.as_view()), path("page", page), path("async", async_page)]
