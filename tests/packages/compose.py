#!/usr/bin/env python3
"""Runs what the services of deploy/compose/compose.yaml run, as processes: compose.py AUTHGATE VENV

The differences: addresses of this machine in the place of names of services, and folders in the place of volumes. VENV has the
packages of deploy/compose/app/requirements.txt; authgate_django comes from the source.
"""

import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy/compose"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args[0]} has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{process.args[0]} does not listen")


def run(authgate, venv, folder, started):
    shutil.copytree(COMPOSE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("secrets", ".env", "__pycache__"))
    subprocess.run([folder / "prepare"], check=True)
    secrets = folder / "secrets"
    assert not [file for file in secrets.iterdir() if file.stat().st_mode & 0o007], "every user can read a secret"
    assert (folder / ".env").read_text() == f"SECRETS_GID={secrets.stat().st_gid}\n"
    redis_port, app_port, gate_port = free_port(), free_port(), free_port()

    (folder / "data").mkdir()
    options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", folder / "data", "--loglevel", "warning"]
    started.append(subprocess.Popen(["redis-server", secrets / "redis.conf", *options]))
    wait_for(redis_port, started[-1])

    environment = {
        "PATH": f"{venv}/bin:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT / "python"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SECRETS": str(secrets),
        "DATABASE": str(folder / "db.sqlite3"),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
    }
    app = folder / "app"
    started.append(subprocess.Popen([app / "start", "--bind", f"127.0.0.1:{app_port}"], env=environment))
    wait_for(app_port, started[-1])
    subprocess.run(
        [venv / "bin/python", "manage.py", "createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com"],
        env=environment | {"DJANGO_SUPERUSER_PASSWORD": "canary-word"},
        cwd=app,
        check=True,
    )

    admin = folder / "admin.sock"
    text = (folder / "gateway.toml").read_text()
    for old, new in [
        ("0.0.0.0:8443", f"127.0.0.1:{gate_port}"),
        ("/run/secrets/", f"{secrets}/"),
        ("redis://redis:6379", f"redis://127.0.0.1:{redis_port}"),
        ("http://app:8000", f"http://127.0.0.1:{app_port}"),
    ]:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "gateway.toml").write_text(text + f'\n[admin]\nlisten = "unix:{admin}"\n')
    started.append(subprocess.Popen([authgate, "run", "--config", folder / "gateway.toml"]))
    # The health check of the image.
    deadline = time.monotonic() + 30
    while subprocess.run([authgate, "probe", "--config", folder / "gateway.toml"], capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, "authgate probe does not succeed"
        time.sleep(0.2)

    context = ssl.create_default_context(cafile=secrets / "tls.pem")

    def ask(path, data=None, **headers):
        request = urllib.request.Request(f"https://localhost:{gate_port}{path}", headers=headers)
        request.data = data and urllib.parse.urlencode(data).encode()
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    status, body = ask("/api/token/", {"username": "ada", "password": "canary-word"})
    assert status == 200, (status, body)
    token = body["token"]
    status, body = ask("/api/me/", Authorization=f"Token {token}")
    assert (status, body) == (200, {"id": 1, "username": "ada", "authenticator": "token"}), (status, body)
    assert ask("/api/me/")[0] == 401
    assert ask("/api/me/", Authorization="Token made-up")[0] == 401
    assert ask("/api/me/", **{"X-User-Id": "1"})[0] == 401, "a client can send the identity"
    # Without the gateway's secret, the application accepts no identity.
    try:
        direct = urllib.request.Request(f"http://127.0.0.1:{app_port}/api/me/", headers={"X-User-Id": "1"})
        urllib.request.urlopen(direct, timeout=20)
        raise AssertionError("the application accepts an identity that is not the gateway's")
    except urllib.error.HTTPError as error:
        assert error.code in (401, 403), error.code


def main():
    authgate, venv = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(authgate, venv, pathlib.Path(folder), started)
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()
    print("ok: a user logs in to Django through the gateway, and the token is accepted at once")


main()
