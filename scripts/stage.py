"""What scripts/load, scripts/soak and scripts/instructions stand on: a gateway with all that it needs beside it, on free ports and sockets
of a temporary folder, for as long as a `with` lasts. Needs redis-server and openssl."""

import base64
import hashlib
import hmac
import json
import pathlib
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SELF_SIGNED = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost
    -addext subjectAltName=DNS:localhost -keyout {name}.key -out {name}.pem
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(check, what, seconds=15, pause=0.05):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except OSError:
            pass  # not listening yet, or /readyz says 503
        time.sleep(pause)
    raise SystemExit(f"{what} was not ready within {seconds} s")


def connects(family, address):
    with socket.socket(family) as s:
        s.connect(address)
        return True


def segment(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def cpu(pid):
    """Nanoseconds that the threads of a process have run, by the scheduler."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads)


def command(*words):
    """A command in the form in which Redis reads it."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class RedisClient:
    """A connection to a Redis: at the path of its socket, or at a host and port. An error reply is raised as an OSError, as a lost connection is."""

    def __init__(self, address, timeout=5):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.stream = self.socket.makefile("rb", 1 << 16)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def ask(self, *words):
        return self.ask_all(command(*words), 1)[0]

    def ask_all(self, commands, count):
        """Sends so many commands in one write, and returns the replies."""
        self.socket.sendall(commands)
        return [self.reply() for _ in range(count)]

    def reply(self):
        line = self.stream.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in (b"+", b":"):
            return rest
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise OSError(rest.decode()) if kind == b"-" else ConnectionError("the connection is closed")


def token_key(key):
    """The name of a token's record."""
    return f"authgate:token:{hashlib.sha256(key.encode()).hexdigest()}"


class Stage:
    """`toml` is a gateway.toml with `{port}`, `{admin}`, `{echo}`, `{redis}` and the names in `more` to be filled in. Redis holds one
    user with the token `key`; `mint` signs JWTs with the secret in `jwt.secret`. `under` is what runs the gateway, if not the system."""

    def __init__(self, authgate, toml, under=(), **more):
        self.authgate, self.toml, self.under, self.more = authgate.resolve(), toml, under, more
        self.started = {}
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def __enter__(self):
        # So that what was started is ended.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.folder = tempfile.TemporaryDirectory(prefix="authgate-stage-")
        self.work = pathlib.Path(self.folder.name)
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.started.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self.folder.cleanup()

    def start(self, name, *command):
        with open(self.work / f"{name}.log", "ab") as log:
            words = [str(word) for word in command]
            self.started[name] = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.work)
        return self.started[name]

    def log(self, name):
        return (self.work / f"{name}.log").read_text(errors="replace")

    def build(self):
        self.port, self.admin, self.echo = free_port(), free_port(), free_port()
        redis = str(self.work / "redis.sock")
        self.places = {"port": self.port, "admin": self.admin, "echo": self.echo, "redis": redis}
        (self.work / "gateway.toml").write_text(self.toml.format(**self.places, **self.more))
        self.secret, self.key = secrets.token_hex(32), "canary-" + secrets.token_hex(16)
        (self.work / "jwt.secret").write_text(self.secret)
        self.make_certificate("tls")

        self.start("redis", "redis-server", "--port", "0", "--unixsocket", redis, "--save", "", "--appendonly", "no")
        self.start_echo()
        wait_until(lambda: connects(socket.AF_UNIX, redis), "redis-server")
        self.fill(redis)
        self.gate = self.start("authgate", *self.under, self.authgate, "run", "--config", self.work / "gateway.toml")
        wait_until(self.ready, "the gateway", seconds=90 if self.under else 15)

    def make_certificate(self, name):
        """A certificate and its key, NAME.pem and NAME.key. Clients trust it, and those before it."""
        command = shlex.split(SELF_SIGNED.format(name=name))
        subprocess.run(command, cwd=self.work, check=True, stderr=subprocess.DEVNULL)
        self.context.load_verify_locations(self.work / f"{name}.pem")

    def start_echo(self, name="echo", port=None):
        port = port or self.echo
        self.start(name, self.authgate, "echo", "--listen", f"127.0.0.1:{port}")
        wait_until(lambda: connects(socket.AF_INET, ("127.0.0.1", port)), "authgate echo")

    def fill(self, redis):
        """One user and one token, in the layout that the gateway documents."""
        records = {
            "layout": json.dumps({"version": 1, "epoch": "stage"}),
            "user:42": json.dumps({"id": "42", "username": "ada", "active": True}),
            "token:" + hashlib.sha256(self.key.encode()).hexdigest(): json.dumps({"user": "42"}),
        }
        for name, value in records.items():
            command = ["redis-cli", "-s", redis, "SET", f"authgate:{name}", value]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def ready(self):
        if self.gate.poll() is not None:
            raise SystemExit(f"the gateway ended:\n{self.log('authgate')}")
        return self.ask_admin("/readyz") is not None

    def ask_admin(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as reply:
            return reply.read().decode()

    def url(self, path, scheme="https"):
        return f"{scheme}://localhost:{self.port}{path}"

    def mint(self, **more):
        now = int(time.time())
        claims = {"token_type": "access", "user_id": "42", "jti": "stage", "iat": now, "exp": now + 3600, **more}
        signed = segment(b'{"alg":"HS256","typ":"JWT"}') + b"." + segment(json.dumps(claims).encode())
        return (signed + b"." + segment(hmac.new(self.secret.encode(), signed, hashlib.sha256).digest())).decode()

    def get(self, path, credential, timeout=5, scheme="https", **more):
        """Status and body; 0 and the reason if there is no answer at all. `more` are further fields."""
        headers = {"Authorization": credential, **more} if credential else more
        request = urllib.request.Request(self.url(path, scheme), headers=headers)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=timeout) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def end(self):
        """Ends the gateway as an operator would; its faults, if any."""
        self.gate.terminate()
        faults = []
        if self.gate.wait(30) != 0:
            faults.append(f"the gateway ended with {self.gate.returncode} on SIGTERM")
        log = self.log("authgate")
        if "panicked" in log or "canary" in log:
            faults.append("the gateway's log tells of a panic, or shows a credential")
        return faults
