"""An ASGI application that answers with what it received."""

import json


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    received = {
        "path": scope["path"],
        "root_path": scope["root_path"],
        "client": scope["client"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-upstream", b"1")]})
    await send({"type": "http.response.body", "body": json.dumps(received).encode()})
