#!/usr/bin/env python3
"""How long a gateway takes from exec to the first 200 of /readyz: the median of 20 starts. start_time.py AUTHGATE"""

import http.client
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

GATEWAY_TOML = """
[server]
listen = ["unix:{folder}/gate.sock"]
[admin]
listen = "unix:{folder}/admin.sock"
[stores.tokens]
kind = "embedded"
file = "tokens.toml"
[authenticators.token]
kind = "token"
[upstreams.app]
servers = ["http://127.0.0.1:9"]
[[routes]]
path = "/*"
authenticate = ["token"]
upstream = "app"
"""
STARTS = 20


def ready(path):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            response = http.client.HTTPResponse(s)
            response.begin()
            return response.status == 200
    except OSError:
        return False


def start(program, folder):
    begin = time.monotonic()
    gateway = subprocess.Popen([program, "run", "--config", folder / "gateway.toml"], stderr=subprocess.DEVNULL)
    try:
        while not ready(folder / "admin.sock"):
            assert gateway.poll() is None and time.monotonic() < begin + 20, "the gateway does not start"
            time.sleep(0.0005)
        return time.monotonic() - begin
    finally:
        gateway.terminate()
        gateway.wait()


def main():
    [program] = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "gateway.toml").write_text(GATEWAY_TOML.format(folder=folder))
        subprocess.run(
            [program, "user", "put", "--config", folder / "gateway.toml", "--id", "1", "--username", "ada"],
            check=True,
            capture_output=True,
        )
        times = sorted(start(program, folder) * 1000 for _ in range(STARTS))
    print(f"start to the first 200 of /readyz: median {statistics.median(times):.1f} ms, from {times[0]:.1f} to {times[-1]:.1f} ms")


main()
