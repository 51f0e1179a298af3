from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy
from knox.auth import TokenAuthentication as KnoxAuthentication
from rest_framework import permissions
from rest_framework.authentication import BasicAuthentication, SessionAuthentication, TokenAuthentication
from rest_framework.decorators import action, api_view, authentication_classes, permission_classes
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from rest_framework_nested.routers import NestedSimpleRouter
from rest_framework_simplejwt.authentication import JWTStatelessUserAuthentication
from rest_framework_simplejwt.views import TokenObtainPairView


class IsOwner(permissions.BasePermission):
    def has_object_permission(self, request, view, obj):
        return False


class Weekdays(permissions.BasePermission):
    def has_permission(self, request, view):
        return True


class Orders(ViewSet):
    def list(self, request):
        return Response([])

    create = retrieve = update = destroy = list

    @action(detail=False, permission_classes=[permissions.AllowAny])
    def recent(self, request):
        return Response([])

    @action(detail=True, methods=["post"], permission_classes=[permissions.IsAdminUser])
    def refund(self, request, pk=None):
        return Response([])


class Items(ViewSet):
    permission_classes = [permissions.IsAuthenticatedOrReadOnly, IsOwner]

    def list(self, request, order_pk=None):
        return Response([])

    retrieve = create = list


class Articles(ViewSet):
    permission_classes = [permissions.IsAuthenticatedOrReadOnly]

    def list(self, request):
        return Response([])

    create = list


class Choosing(ViewSet):
    def list(self, request):
        return Response([])

    create = list

    def get_permissions(self):
        return [permissions.AllowAny()] if self.action == "list" else [permissions.IsAdminUser()]


class Failing(APIView):
    def get(self, request):
        return Response([])

    def get_permissions(self):
        raise RuntimeError(self.request.user.organisation)


def view(*, auth=None, perms=None):
    """A view of GET and POST with these classes."""

    class Made(APIView):
        if auth is not None:
            authentication_classes = auth
        if perms is not None:
            permission_classes = perms

        def get(self, request):
            return Response([])

        post = get

    return Made.as_view()


class Custom(TokenAuthentication):
    def authenticate_credentials(self, key):
        return None


class Keyword(TokenAuthentication):
    keyword = "ApiKey"


class OwnModel(TokenAuthentication):
    model = Group  # stands for a table of tokens


class ChangedStateless(JWTStatelessUserAuthentication):
    def get_validated_token(self, raw_token):
        return super().get_validated_token(raw_token)


@api_view(["GET", "DELETE"])
@permission_classes([permissions.IsAdminUser])
def purge(request):
    return Response([])


@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
def webhook(request):
    return Response([])


def page(request, **kwargs):
    return HttpResponse()


router = DefaultRouter()
router.register("orders", Orders, basename="order")
router.register("articles", Articles, basename="article")
router.register("choosing", Choosing, basename="choosing")
items = NestedSimpleRouter(router, "orders", lookup="order")
items.register("items", Items, basename="item")

urlpatterns = [
    path("api/", include(router.urls)),
    path("api/", include(items.urls)),
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/purge/", purge),
    path("api/webhook/", webhook),
    path("api/failing/", Failing.as_view()),
    path("p/any/", view(perms=[permissions.AllowAny])),
    path("p/owner/", view(perms=[IsOwner])),
    path("p/weekdays/", view(perms=[Weekdays])),
    path("p/both/", view(perms=[permissions.IsAuthenticated & Weekdays])),
    path("p/either/", view(perms=[permissions.IsAdminUser | permissions.IsAuthenticatedOrReadOnly])),
    path("p/not/", view(perms=[~permissions.IsAdminUser])),
    path("p/model/", view(perms=[permissions.DjangoModelPermissionsOrAnonReadOnly])),
    path("a/session/", view(auth=[SessionAuthentication, TokenAuthentication])),
    path("a/basic/", view(auth=[TokenAuthentication, BasicAuthentication])),
    path("a/only-session/", view(auth=[SessionAuthentication])),
    path("a/custom/", view(auth=[Custom])),
    path("a/knox/", view(auth=[KnoxAuthentication])),
    path("a/keyword/", view(auth=[Keyword])),
    path("a/own-model/", view(auth=[OwnModel])),
    path("a/stateless/", view(auth=[JWTStatelessUserAuthentication])),
    path("a/changed-stateless/", view(auth=[ChangedStateless])),
    # Regular expressions.
    re_path(r"^r/(?P<year>[0-9]{4})/open/$", view(perms=[permissions.AllowAny])),
    re_path(r"^r/(?P<year>[0-9]{4})/closed/$", view()),
    re_path(r"^optional/slash/?$", view()),
    re_path(r"^either/(?:left|right)/$", view()),
    re_path(r"^begins/with", view()),
    re_path(r"^dots/v1\.0/$", view()),
    # One path of Django's that another pattern takes, and one that reaches below a longer prefix.
    path("shop/<slug:name>/", view()),
    path("shop/taken/", view(perms=[permissions.AllowAny])),
    path("shop/sale/<int:pk>/", view(perms=[permissions.AllowAny])),
    path("deep/<path:rest>", view()),
    path("deep/open/<int:pk>/", view(perms=[permissions.AllowAny])),
    path("admin/", admin.site.urls),
    *i18n_patterns(path(gettext_lazy("page/"), page), path("account/<int:pk>/", view()), prefix_default_language=False),
]
