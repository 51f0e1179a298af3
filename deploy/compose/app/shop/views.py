from rest_framework.decorators import api_view
from rest_framework.response import Response


@api_view()
def me(request):
    return Response({"id": request.user.pk, "username": request.user.get_username(), "authenticator": request.auth.authenticator})
