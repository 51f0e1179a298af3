"""A WSGI application that answers with what it received."""

import json


def app(environ, start_response):
    received = {name: value for name, value in environ.items() if isinstance(value, str)}
    received["body"] = environ["wsgi.input"].read().decode("latin-1")
    start_response("200 OK", [("X-Upstream", "1"), ("Content-Type", "application/json")])
    return [json.dumps(received).encode()]
