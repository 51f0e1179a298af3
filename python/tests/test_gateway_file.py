"""`manage.py authgate_config`, on whole projects. Each runs in a process of its own: DRF reads its settings once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from authgate_django.gateway_file.patterns import Shape, scan, with_formats

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "tests" / "django"
SECRETS = {"AUTHGATE_JWT_SECRET": "canary-0123456789-0123456789-01234567", "GATEWAY_SECRET": "canary-0123456789"}


def command(settings, *words, folder=HERE.parent):
    path = os.pathsep.join([str(HERE.parent), str(HERE), str(SAMPLE), str(folder)])
    environment = {**os.environ, "PYTHONPATH": path, "DJANGO_DB": ":memory:"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    line = [sys.executable, "-m", "django", "authgate_config", "--settings", settings, *words]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def variant(tmp_path):
    """Runs the command for project.shop_settings with more settings."""

    def run(more, *words):
        imports = "from project.shop_settings import *\nfrom project.shop_settings import SIMPLE_JWT\n"
        (tmp_path / "variant_settings.py").write_text(imports + more)
        return command("variant_settings", *words, folder=tmp_path)

    return run


@pytest.fixture(scope="module")
def shop():
    done = command("project.shop_settings")
    assert done.returncode == 0, done.stderr
    return done.stdout


def policies(text):
    """By path and method: public, optional, required or staff, and the authenticators."""
    found = {}
    for route in tomllib.loads(text)["routes"]:
        strength = "public" if route.get("public") else "optional" if route.get("optional") else "required"
        strength = "staff" if "require" in route else strength
        for method in route.get("methods", ["*"]):
            found[route["path"], method] = (strength, route.get("authenticate", []))
    return found


@pytest.mark.parametrize(
    ("path", "method", "strength"),
    [
        # Nested routers, actions, settings-level defaults. `/api/orders/*` has retrieve, refund (staff) and the items.
        ("/api/", "GET", "required"),
        ("/api/orders/", "GET", "required"),
        ("/api/orders/", "POST", "required"),
        ("/api/orders/recent/", "GET", "optional"),
        ("/api/orders/*", "GET", "required"),
        ("/api/orders/*", "DELETE", "required"),
        ("/api/orders/*", "POST", "staff"),
        ("/api/orders.json", "GET", "required"),
        ("/api/articles/", "GET", "optional"),
        ("/api/articles/", "POST", "required"),
        # get_permissions() that looks at the action, and one that needs a user.
        ("/api/choosing/", "GET", "optional"),
        ("/api/choosing/", "POST", "staff"),
        ("/api/failing/", "GET", "required"),
        # @api_view
        ("/api/purge/", "DELETE", "staff"),
        ("/api/webhook/", "POST", "public"),
        ("/api/token/", "POST", "public"),
        # Classes of permissions.
        ("/p/any/", "GET", "optional"),
        ("/p/owner/", "GET", "required"),
        ("/p/weekdays/", "GET", "required"),
        ("/p/both/", "GET", "required"),
        ("/p/either/", "GET", "optional"),
        ("/p/either/", "POST", "required"),
        ("/p/not/", "GET", "required"),
        ("/p/model/", "GET", "optional"),
        ("/p/model/", "POST", "required"),
        # Classes of authentication.
        ("/a/session/", "GET", "optional"),
        ("/a/basic/", "GET", "optional"),
        ("/a/only-session/", "GET", "public"),
        ("/a/custom/", "GET", "public"),
        ("/a/knox/", "GET", "required"),
        ("/a/keyword/", "GET", "required"),
        # Regular expressions: the stricter of two that one path covers wins.
        ("/r/*", "GET", "required"),
        ("/optional/slash", "GET", "required"),
        ("/optional/slash/", "GET", "required"),
        ("/either/left/", "GET", "required"),
        ("/either/right/", "GET", "required"),
        ("/begins/*", "GET", "required"),
        ("/dots/v1.0/", "GET", "required"),
        # A view that another pattern hides, and one that reaches below a longer prefix.
        ("/shop/*", "GET", "required"),
        ("/shop/sale/", "GET", "required"),
        ("/shop/sale", "GET", "required"),
        ("/shop/sale/*", "GET", "optional"),
        ("/deep/*", "GET", "required"),
        # Pages of Django, in each language.
        ("/admin/*", "*", "public"),
        ("/page/", "*", "public"),
        ("/de/page/", "*", "public"),
        ("/account/*", "GET", "required"),
        ("/de/account/*", "GET", "required"),
    ],
)
def test_each_view_has_a_route_with_its_policy(shop, path, method, strength):
    assert policies(shop)[path, method][0] == strength


def test_a_view_that_another_pattern_hides_gives_no_weaker_route(shop):
    found = policies(shop)
    assert ("/shop/taken/", "GET") not in found
    assert ("/deep/open/*", "GET") not in found, "`deep/<path:rest>` can be reached there"


def test_suffixes_can_be_left_out(shop):
    done = command("project.shop_settings", "--no-suffixes")
    found, whole = policies(done.stdout), policies(shop)
    assert not any(".json" in path for path, _ in found)
    assert found == {key: value for key, value in whole.items() if ".json" not in key[0]}


def test_methods_are_those_of_the_view(shop):
    found = policies(shop)
    assert ("/api/articles/", "DELETE") not in found
    assert ("/api/purge/", "POST") not in found
    assert {method for path, method in found if path == "/api/orders/*"} == {"GET", "POST", "PUT", "DELETE", "OPTIONS"}


def test_authenticators_are_those_of_the_settings_and_the_views(shop):
    file, found = tomllib.loads(shop), policies(shop)
    assert found["/p/both/", "GET"][1] == ["jwt", "token"], "the order of DEFAULT_AUTHENTICATION_CLASSES"
    assert found["/a/knox/", "GET"][1] == ["knox"]
    keyword = file["authenticators"][found["/a/keyword/", "GET"][1][0]]
    assert (keyword["kind"], keyword["scheme"]) == ("token", "ApiKey")
    jwt = file["authenticators"]["jwt"]
    assert jwt.pop("keys") == [{"algorithm": "HS256", "secret": {"env": "AUTHGATE_JWT_SECRET"}}]
    assert jwt == {
        "kind": "jwt",
        "scheme": ["Bearer", "JWT"],
        "issuer": "https://id.example.com",
        "audience": ["orders", "app"],
        "leeway": "30s",
        "user_id_claim": "sub",
        "jti_claim": False,
        "users": "none",
    }
    assert file["stores"]["redis"]["digest"] == ["sha256", "sha512"]
    session = next(route for route in file["routes"] if route["path"] == "/a/session/")
    assert session["challenge"] == "none"


def test_each_route_is_explained_and_what_stays_in_django_is_listed(shop):
    for block in shop.split("\n\n"):
        assert "[[routes]]" not in block or block.startswith("# "), block
    for words in [
        "stricter than Django: GET of project.shop_urls.Items is optional there and authenticated here",
        "project.shop_urls.purge",
        "Weekdays: code of the project, so Django goes on deciding",
        "Custom: has authenticate_credentials of its own",
        "SessionAuthentication: sessions of browsers",
        "python manage.py dumpdata auth.user auth.group authtoken.token knox.authtoken | authgate token import -",
    ]:
        assert words in shop.replace("\n#   ", " "), words


def test_the_file_has_no_secret(shop):
    assert "canary" not in shop
    assert "canary" not in command("mysite.before_settings").stdout


@pytest.mark.skipif("AUTHGATE" not in os.environ, reason="AUTHGATE names no built gateway")
@pytest.mark.parametrize("settings", ["project.shop_settings", "mysite.before_settings", "mysite.site_settings"])
def test_the_gateway_accepts_the_file(tmp_path, settings):
    file = tmp_path / "gateway.toml"
    file.write_text(command(settings).stdout)
    (tmp_path / "tokens.toml").write_text("")
    line = [os.environ["AUTHGATE"], "check", "--config", str(file)]
    done = subprocess.run(line, env={**os.environ, **SECRETS}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "warning" not in done.stderr + done.stdout


def test_the_sample_project_has_the_routes_of_the_documentation():
    before, site = [policies(command(f"mysite.{name}_settings").stdout) for name in ("before", "site")]
    assert before["/api/hello/", "POST"] == ("required", ["token", "jwt"])
    assert site["/api/hello/", "POST"] == ("optional", ["token", "jwt"]), "SessionAuthentication stays in Django"
    for found in (before, site):
        assert found["/api/token/", "POST"][0] == "public"
        assert found["/healthz", "*"][0] == "public"
    assert site["/admin/*", "*"][0] == site["/static/*", "*"][0] == "public"


def test_diff_fails_if_a_view_has_no_route(tmp_path, shop):
    file = tmp_path / "gateway.toml"

    def diff(text):
        file.write_text(text)
        return command("project.shop_settings", "--diff", str(file))

    same = diff(shop)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    routes = re.split(r"(?=\n\[\[routes\]\])", shop)
    without = "".join(each for each in routes if "/api/purge" not in each)
    missing = diff(without)
    assert missing.returncode == 1
    assert "/api/purge/ has no route (project.shop_urls.purge)" in missing.stdout
    method = diff(shop.replace('methods = ["GET", "DELETE", "OPTIONS"]', 'methods = ["GET", "OPTIONS"]'))
    assert method.returncode == 1
    assert "/api/purge/ has no route for DELETE" in method.stdout
    wide = diff('[[routes]]\npath = "/*"\nauthenticate = ["token"]\nupstream = "app"\n')
    assert wide.returncode == 0
    weak = diff('[[routes]]\npath = "/*"\npublic = true\nupstream = "app"\n')
    assert weak.returncode == 0
    assert "GET /p/both/ is public in the file, and authenticated in Django" in weak.stderr
    assert diff("[[routes").returncode == 1


def test_diff_fails_if_django_trusts_a_field_that_the_gateway_does_not_send(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(command("mysite.site_settings").stdout)
    assert command("mysite.site_settings", "--diff", str(file)).returncode == 0
    file.write_text(file.read_text().replace('X-Auth-Source = "authenticator"', 'X-Source = "authenticator"'))
    done = command("mysite.site_settings", "--diff", str(file))
    assert done.returncode == 1
    assert "AUTHGATE reads X-Auth-Source as authenticator" in done.stdout


JWT_FIELD = "SIMPLE_JWT = {**SIMPLE_JWT, 'USER_ID_FIELD': '%s'}\n"
AUTHGATE = "AUTHGATE = {'SECRET_HEADER': 'X-Gateway-Secret', 'SECRET': 'canary-0123456789abcdef', %s}\n"
MOVED = (
    "REST_FRAMEWORK = {'DEFAULT_AUTHENTICATION_CLASSES': ['authgate_django.authentication.GatewayAuthentication']}\n"
)


@pytest.mark.skipif("AUTHGATE" not in os.environ, reason="AUTHGATE names no built gateway")
def test_a_username_in_the_claim_becomes_the_primary_key_before_django_reads_it(tmp_path, variant):
    done = variant(JWT_FIELD % "username" + "SIMPLE_JWT['CHECK_USER_IS_ACTIVE'] = False\n")
    assert done.returncode == 0, done.stderr
    jwt = tomllib.loads(done.stdout)["authenticators"]["jwt"]
    assert (jwt["users"], jwt["user_id_field"], jwt["check_user_is_active"]) == ("redis", "username", False)
    file = tmp_path / "gateway.toml"
    file.write_text(done.stdout)
    line = [os.environ["AUTHGATE"], "check", "--config", str(file)]
    checked = subprocess.run(line, env={**os.environ, **SECRETS}, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr + checked.stdout


def test_jwts_stay_in_django_if_the_gateway_cannot_find_their_users(variant):
    for more, reason in [
        (JWT_FIELD % "email", "SIMPLE_JWT USER_ID_FIELD is 'email', and AUTHGATE USER_LOOKUP is 'pk'."),
        ("SIMPLE_JWT = {**SIMPLE_JWT, 'USER_AUTHENTICATION_RULE': 'shop.rule'}\n", "code of the project"),
    ]:
        done = variant(more)
        assert done.returncode == 0, done.stderr
        assert "jwt" not in tomllib.loads(done.stdout)["authenticators"]
        assert reason in done.stdout.replace("\n#   ", " ")


def test_a_field_of_the_claim_that_django_looks_up_needs_no_store(variant):
    done = variant(JWT_FIELD % "username" + AUTHGATE % "'USER_LOOKUP': 'username'")
    assert done.returncode == 0, done.stderr
    file = tomllib.loads(done.stdout)
    assert file["authenticators"]["jwt"]["users"] == "none"
    assert set(file["authenticators"]) == {"jwt"}, "the users of opaque tokens have the primary key as their id"


def test_a_project_that_has_moved_learns_why_django_would_find_other_users(variant):
    for more, reason in [
        (JWT_FIELD % "email" + AUTHGATE % "", "write 'id' or 'username' as USER_ID_FIELD"),
        (JWT_FIELD % "username" + AUTHGATE % "'USER_LOOKUP': 'username'", "Remove USER_LOOKUP."),
    ]:
        done = variant(MOVED + more)
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr


def test_a_store_that_signals_write_has_their_prefix_and_no_password(variant):
    done = variant(AUTHGATE % "'REDIS_URL': 'redis://:canary-redis@10.0.0.1', 'PREFIX': 'shop:'")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["stores"]["redis"]["prefix"] == "shop:"
    assert "python manage.py authgate_sync" in done.stdout and "dumpdata" not in done.stdout
    assert "canary" not in done.stdout


def test_a_mistake_in_the_settings_ends_the_command(tmp_path, variant):
    (tmp_path / "gateway.toml").write_text("")
    for words in [[], ["--diff", "gateway.toml"]]:
        done = variant(AUTHGATE % "'HEADERS': {'X-A': 'nonsense'}", *words)
        assert done.returncode == 1
        assert "CommandError: AUTHGATE[\"HEADERS\"] has 'nonsense'" in done.stderr


def test_a_subclass_that_changes_what_the_gateway_does_stays_in_django(shop):
    found = policies(shop)
    for path in ["/a/changed-stateless/", "/a/own-model/"]:
        assert found[path, "GET"][0] == "public", path
    assert found["/a/stateless/", "GET"] == ("required", ["jwt"])
    comments = shop.replace("\n#   ", " ")
    assert "ChangedStateless: has get_validated_token of its own" in comments
    assert "OwnModel: has model of its own" in comments


def test_diff_reads_the_identity_headers_of_the_upstreams_that_serve_django(tmp_path, variant):
    route = '[[routes]]\npath = "/*"\npublic = true\nupstream = "app"\n'
    common = '[identity]\nheaders = { X-User-Id = "id", X-Tenant = "claims.tenant" }\n'
    more = AUTHGATE % "'HEADERS': {'X-Tenant': 'claims.tenant'}"

    def diff(text):
        (tmp_path / "gateway.toml").write_text(text)
        return variant(more, "--diff", "gateway.toml")

    for same in [
        common,
        common + '[upstreams.app]\nservers = []\n[upstreams.app.identity]\ncredential = "keep"\n',
        common + '[upstreams.app.identity]\nheaders = { X-user-id = "id", X-Tenant = "claims.tenant" }\n',
        common + '[upstreams.other.identity]\nheaders = { X-Tenant = "email" }\n',
    ]:
        done = diff(same + route)
        assert (done.returncode, done.stdout) == (0, ""), same
    for different, words in [
        ("", "AUTHGATE reads X-Tenant as claims.tenant, and no identity headers have it: clients could send it"),
        (
            common + '[upstreams.app.identity]\nheaders = { X-User-Id = "id" }\n',
            "AUTHGATE reads X-Tenant as claims.tenant, and upstream app receives none",
        ),
        (
            common + '[upstreams.app.identity]\nheaders = { X-User-Id = "username", X-Tenant = "claims.tenant" }\n',
            "AUTHGATE reads X-User-Id as id, and upstream app receives username",
        ),
    ]:
        done = diff(different + route)
        assert (done.returncode, done.stdout.strip()) == (1, words)


SIGNED = "AUTHGATE = {'IDENTITY': 'signed', %s}\n"


@pytest.mark.parametrize(
    ("more", "identity", "upstream", "key_set"),
    [
        ("'AUDIENCE': 'app', 'JWKS_URL': 'http://127.0.0.1:9901/jwks.json'", {}, None, None),
        (
            "'AUDIENCE': 'shop', 'JWKS_URL': 'https://gate.example/.well-known/jwks.json', 'ISSUER': 'edge'",
            {"issuer": "edge"},
            {"audience": "shop"},
            "/.well-known/jwks.json",
        ),
        ("'AUDIENCE': 'app', 'KEYS': [KEY], 'SIGNED_HEADER': 'X-Who'", {"header": "X-Who"}, None, None),
    ],
)
def test_signed_identity_is_written_and_the_gateway_accepts_it(tmp_path, variant, more, identity, upstream, key_set):
    create = ["openssl", "genpkey", "-algorithm", "ED25519", "-out", str(tmp_path / "identity.key")]
    subprocess.run(create, check=True)
    public = ["openssl", "pkey", "-in", str(tmp_path / "identity.key"), "-pubout"]
    pem = subprocess.run(public, check=True, capture_output=True, text=True).stdout
    settings = f"KEY = {pem!r}\n" + SIGNED % more
    done = variant(settings)
    assert done.returncode == 0, done.stderr
    file = tomllib.loads(done.stdout)
    keys = [{"algorithm": "EdDSA", "file": "identity.key"}]
    assert file["identity"] == {"headers": {}, "credential": "keep", "signed": {"keys": keys, **identity}}
    assert file["upstreams"]["app"].get("identity") == upstream
    assert "secret_header" not in file["upstreams"]["app"]
    assert [route["path"] for route in file["routes"] if route.get("jwks")] == ([key_set] if key_set else [])
    assert "openssl genpkey -algorithm ED25519 -out identity.key" in done.stdout
    (tmp_path / "gateway.toml").write_text(done.stdout)
    again = variant(settings, "--diff", "gateway.toml")
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    for changed, words in [
        (done.stdout.replace("signed = {", 'signed = { issuer = "x",').replace('issuer = "edge", ', ""), "ISSUER"),
        (re.sub("(?m)^signed = .*$", "", done.stdout), "reads a signed identity, and upstream app receives none"),
        (done.stdout.replace("[upstreams.app]", "[upstreams.app]\nidentity.audience = 'y'"), "AUDIENCE of AUTHGATE"),
    ]:
        if upstream and "AUDIENCE" in words:
            continue  # it has an audience already
        (tmp_path / "gateway.toml").write_text(changed)
        different = variant(settings, "--diff", "gateway.toml")
        assert different.returncode == 1 and words in different.stdout, different.stdout
    if "AUTHGATE" in os.environ:
        (tmp_path / "gateway.toml").write_text(done.stdout)
        line = [os.environ["AUTHGATE"], "check", "--config", str(tmp_path / "gateway.toml")]
        checked = subprocess.run(line, env={**os.environ, **SECRETS}, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr + checked.stdout


def test_diff_uses_the_routes_of_a_host_alone_if_it_has_some(tmp_path, variant, shop):
    head = '[[routes]]\nhost = "api.example.com"\n'

    def diff(text):
        (tmp_path / "gateway.toml").write_text(text)
        return variant("", "--diff", "gateway.toml")

    done = diff(shop + head + 'path = "/api/purge/"\nmethods = ["GET", "OPTIONS"]\nauthenticate = ["jwt"]\n')
    assert done.returncode == 1
    assert "/api/purge/ of api.example.com has no route for DELETE (project.shop_urls.purge)" in done.stdout
    done = diff(shop + head + 'path = "/p/both/"\npublic = true\n')
    assert done.returncode == 0
    assert "GET /p/both/ of api.example.com is public in the file, and authenticated in Django" in done.stderr


@pytest.mark.parametrize(
    ("regex", "paths"),
    [
        (r"^api/$", ["/api/"]),
        (r"^api/?$", ["/api", "/api/"]),
        (r"^a(?P<pk>[^/.]+)$", ["/*"]),
        (r"^x/(?P<pk>[0-9]{1,3})/y/\Z", ["/x/*"]),
        (r"^x/(one|two)/$", ["/x/one/", "/x/two/"]),
        (r"^x/(?i:one)/$", ["/*"]),
        (r"^a|b$", ["/*"]),
        (r"^x/a+/$", ["/x/*"]),
        (r"^x/\d*/z$", ["/x/*"]),
        (r"^x/a\.b\-c/$", ["/x/a.b-c/"]),
        (r"^x/[(/]y/$", ["/x/*"]),
        (r"^x/ü/$", ["/x/*"]),
        (r"^x//y/$", ["/x/*"]),
    ],
)
def test_the_path_of_a_pattern_covers_all_that_it_matches(regex, paths):
    assert sorted({Shape(tokens).pattern() for tokens in scan(regex)[0]}) == paths


@pytest.mark.parametrize(
    ("regex", "formats", "paths"),
    [
        (r"^x\.(?P<format>[a-z0-9]+)/?$", ["json"], ["/x.json", "/x.json/"]),
        (r"^x(?P<format>\.[a-z0-9]+/?)$", ["json", "api"], ["/x.api", "/x.api/", "/x.json", "/x.json/"]),
        (r"^x\.(?P<format>[a-z0-9]+)$", None, ["/*"]),
        (r"^x\.(?P<format>[a-z0-9]+)$", [], []),
        (r"^x/(?P<format>[a-z0-9]+)/$", ["json"], ["/x/*"]),  # a folder, no suffix
    ],
)
def test_suffixes_are_those_that_the_view_renders(regex, formats, paths):
    found = [Shape(each).pattern() for tokens in scan(regex)[0] for each in with_formats(tokens, formats)]
    assert sorted(found) == paths
