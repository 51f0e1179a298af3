"""A real Redis and the real gateway. Both are ended by their ids."""

import http.client
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis
from django.core.management import call_command

JWT_SECRET = "canary-0123456789-0123456789-01234567"
# What the application may do, as docs/django.md says.
RIGHTS = (
    "on >canary-app resetkeys ~authgate:* ~other:* ~members:* resetchannels -@all +get +mget +set +del +sadd +srem "
    "+smembers +sismember +scan +watch +unwatch +multi +exec +auth +ping +select"
)


def wait_until(what, ready):
    """Bounded by 20 s, so that a test which waits for nothing fails."""
    for _ in range(2000):
        found = ready()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within 20 s: {what}")


@pytest.fixture
def folder():
    """A short path: socket files may have about 100 characters."""
    made = tempfile.mkdtemp(prefix="authgate-")
    yield Path(made)
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def redis_socket():
    folder = tempfile.mkdtemp(prefix="authgate-")
    socket = f"{folder}/redis.sock"
    line = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    admin = redis.Redis(unix_socket_path=socket)

    def answers():
        try:
            return admin.ping()
        except redis.ConnectionError:
            return False

    try:
        wait_until("Redis answers", answers)
        admin.execute_command("ACL", "SETUSER", "app", *RIGHTS.split())
        yield socket
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture
def stored(redis_socket):
    """What the store has, for a reader with all rights."""
    admin = redis.Redis(unix_socket_path=redis_socket, decode_responses=True)
    admin.flushall()
    return Stored(admin)


class Stored:
    def __init__(self, admin):
        self.admin = admin

    def get(self, key, prefix="authgate:"):
        value = self.admin.get(prefix + key)
        return None if value is None else json.loads(value) if value.startswith("{") else value

    def put(self, key, record):
        self.admin.set("authgate:" + key, json.dumps(record))

    def names(self, prefix="authgate:"):
        """Without those by which a gateway measures how late revocations arrive: it writes them on its own."""
        names = (key.removeprefix(prefix) for key in self.admin.scan_iter(prefix + "*"))
        return sorted(name for name in names if not name.startswith("canary:"))

    def everything(self, prefix):
        """Values by key, byte for byte; the layout has a random epoch."""
        kinds = {key: self.admin.type(prefix + key) for key in self.names(prefix) if key != "layout"}
        read = {"string": self.admin.get, "set": self.admin.smembers}
        return {key: read[kind](prefix + key) for key, kind in kinds.items()}


@pytest.fixture
def app_url(redis_socket):
    return f"unix://app:canary-app@{redis_socket}?db=0"


@pytest.fixture
def seal():
    """The seal of the store; tests of sealed stores have their own."""
    return None


@pytest.fixture
def store(stored, app_url, settings, transactional_db, monkeypatch, seal):
    """A complete and empty store that the signals of this project write to."""
    from authgate_django.store import drift, signals

    monkeypatch.setattr(drift, "SETTLE", 0)
    settings.AUTHGATE = {**settings.AUTHGATE, "REDIS_URL": app_url, "SEAL": seal}
    call_command("authgate_sync", verbosity=0)
    signals.connect()
    signals._end_pause()
    yield stored
    settings.AUTHGATE = {}  # the signals stay connected


@pytest.fixture
def gateway(folder, redis_socket, seal):
    """The gateway before an application that answers with the identity it receives."""
    if "AUTHGATE" not in os.environ:
        pytest.skip("AUTHGATE names no built gateway")
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    file = folder / "gateway.toml"
    if seal is not None:
        (folder / "seal.key").write_bytes(seal)
    file.write_text(
        f"""
[server]
listen = ["127.0.0.1:0"]
[log]
format = "json"
[admin]
listen = "unix:{folder}/admin.sock"
[stores.redis]
kind = "redis"
url = "unix://{redis_socket}?db=0"
digest = ["sha256", "sha512"]
{'seal = { file = "seal.key" }' if seal is not None else ""}
[authenticators.token]
kind = "token"
store = "redis"
[authenticators.jwt]
kind = "jwt"
keys = [{{ algorithm = "HS256", secret = {{ env = "JWT_SECRET" }} }}]
users = "redis"
user_id_field = "username"
check_revoke_token = true
[identity]
headers = {{ X-User-Id = "id", X-User-Name = "username", X-User-Groups = "groups" }}
[upstreams.app]
servers = ["http://127.0.0.1:{application.server_address[1]}"]
[[routes]]
path = "/*"
authenticate = ["token", "jwt"]
upstream = "app"
"""
    )
    environment = {**os.environ, "JWT_SECRET": JWT_SECRET}
    line = [os.environ["AUTHGATE"], "run", "--config", str(file)]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        event = next(line for line in process.stderr if '"serving"' in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        host, port = json.loads(event)["listen"].split(":")
        yield Gateway(host, int(port), file)
    finally:
        process.terminate()
        process.wait()
        application.shutdown()


class Application(BaseHTTPRequestHandler):
    def do_GET(self):
        names = {"user": "X-User-Id", "username": "X-User-Name", "groups": "X-User-Groups"}
        body = json.dumps({name: self.headers[field] for name, field in names.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Gateway:
    def __init__(self, host, port, file):
        self.address = (host, port)
        self.file = file

    def get(self, credential):
        """The status, and what the application received."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        connection.request("GET", "/", headers={"Authorization": credential})
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, json.loads(body) if reply.status == 200 else None

    def wait_for(self, credential, status, **received):
        """Changes come through the connection on which Redis reports them."""

        def is_so():
            found, body = self.get(credential)
            return found == status and received.items() <= (body or {}).items()

        wait_until(f"{status} {received} for the credential; it is {self.get(credential)}", is_so)
