"""A WSGI application that says what it was told."""

import json


def app(environ, start_response):
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    told["body"] = environ["wsgi.input"].read().decode("latin-1")
    start_response("200 OK", [("X-Upstream", "1"), ("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
