"""gRPC's own implementation on both sides of the gateway: `serve` prints its port, `call ADDRESS` makes calls of all kinds."""

import sys
import time
from concurrent import futures

import grpc


def name_of(context):
    return dict(context.invocation_metadata()).get("x-user-id", "anonymous").encode()


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "late"),))
    return name_of(context) + b":" + request


def fails(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 100 % säker")


def slow(request, context):
    time.sleep(float(request))
    return b"late"


def download(request, context):
    for at in range(int(request)):
        yield b"%d" % at


def upload(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def echo(requests, context):
    for request in requests:
        yield request


class Handler(grpc.GenericRpcHandler):
    KINDS = {
        "/t.T/Unary": grpc.unary_unary_rpc_method_handler(unary),
        "/t.T/Fails": grpc.unary_unary_rpc_method_handler(fails),
        "/t.T/Slow": grpc.unary_unary_rpc_method_handler(slow),
        "/t.T/Download": grpc.unary_stream_rpc_method_handler(download),
        "/t.T/Upload": grpc.stream_unary_rpc_method_handler(upload),
        "/t.T/Echo": grpc.stream_stream_rpc_method_handler(echo),
    }

    def service(self, details):
        return self.KINDS.get(details.method)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=600))
    server.add_generic_rpc_handlers((Handler(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def call(address):
    ada = (("authorization", "Token canary-ada"),)
    with grpc.insecure_channel(address) as channel:
        one = channel.unary_unary("/t.T/Unary")
        answer, done = one.with_call(b"hello", metadata=ada)
        assert answer == b"42:hello", answer
        assert ("x-trailer", "late") in [tuple(pair) for pair in done.trailing_metadata()], done.trailing_metadata()

        assert code_of(lambda: one(b"x"))[0] == grpc.StatusCode.UNAUTHENTICATED
        bad = (("authorization", "Token canary-unknown"),)
        code, details = code_of(lambda: one(b"x", metadata=bad))
        assert code == grpc.StatusCode.UNAUTHENTICATED and "unknown" in details, (code, details)
        staff = channel.unary_unary("/staff.T/Unary")
        assert code_of(lambda: staff(b"x", metadata=ada))[0] == grpc.StatusCode.PERMISSION_DENIED
        gone = channel.unary_unary("/gone.T/Unary")
        assert code_of(lambda: gone(b"x", metadata=ada))[0] == grpc.StatusCode.UNAVAILABLE
        nowhere = channel.unary_unary("/nowhere.T/Unary")
        assert code_of(lambda: nowhere(b"x", metadata=ada))[0] == grpc.StatusCode.UNIMPLEMENTED

        fails = channel.unary_unary("/t.T/Fails")
        expected = (grpc.StatusCode.FAILED_PRECONDITION, "not like this: 100 % säker")
        assert code_of(lambda: fails(b"x", metadata=ada)) == expected
        slow = channel.unary_unary("/t.T/Slow")
        began = time.monotonic()
        code, _ = code_of(lambda: slow(b"20", metadata=ada, timeout=0.5))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - began < 10, code

        download = channel.unary_stream("/t.T/Download")
        assert [int(part) for part in download(b"1000", metadata=ada)] == list(range(1000))
        upload = channel.stream_unary("/t.T/Upload")
        assert upload((b"x" * 1000 for _ in range(1000)), metadata=ada) == b"1000000"

        # In turn: each message is answered before the next one is sent.
        echo = channel.stream_stream("/t.T/Echo")
        answers = []

        def questions():
            for at in range(50):
                while len(answers) < at:
                    time.sleep(0.001)
                yield b"%d" % at

        for answer in echo(questions(), metadata=ada):
            answers.append(answer)
        assert answers == [b"%d" % at for at in range(50)], answers

        many = [one.future(b"%d" % at, metadata=ada) for at in range(500)]
        assert [call.result() for call in many] == [b"42:%d" % at for at in range(500)]
    print("all is well")


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(sys.argv[2])
