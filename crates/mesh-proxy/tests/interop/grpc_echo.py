"""A gRPC service without generated code: messages are bytes.

    grpc_echo.py server                      prints its port, runs until its input ends
    grpc_echo.py client HOST:PORT            makes every kind of call, exits 0 when all are right
"""

import sys
import threading
from concurrent import futures

import grpc

SERVICE = "mesh.test.Echo"
LARGE = 4 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", 2 * LARGE),
    ("grpc.max_send_message_length", 2 * LARGE),
]


def unary(request, context):
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", sent.get("x-from-client", "none")),))
    context.set_trailing_metadata((("x-trailing", "yes"), ("x-blob-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-trailing", "also here"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % wrong, \u00e9")


def half(request, context):
    yield request
    context.abort(grpc.StatusCode.DATA_LOSS, "half of it")


def hang(request, context):
    # Until the call is over, which happens when the caller gives up: what is returned then is late.
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(5)
    return b""


def count(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def total(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def echo(requests, context):
    for request in requests:
        yield request.upper()


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "Half": grpc.unary_stream_rpc_method_handler(half),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((generic,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0).wait()


def equal(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r} instead of {wanted!r}")
    print("ok", what, flush=True)


def calls(target):
    channel = grpc.insecure_channel(target, OPTIONS)

    def path(name):
        return f"/{SERVICE}/{name}"

    def failure(what, call, code, details=None):
        try:
            call()
        except grpc.RpcError as error:
            equal(what, error.code(), code)
            if details is not None:
                equal(what + ", in words", error.details(), details)
            return error
        sys.exit(f"{what}: it did not fail")

    unary = channel.unary_unary(path("Unary"))
    answer, call = unary.with_call(b"hello", timeout=5, metadata=(("x-from-client", "client"),))
    equal("unary", answer, b"hello")
    equal("initial metadata", dict(call.initial_metadata()).get("x-initial"), "client")
    trailing = dict(call.trailing_metadata())
    equal("trailing metadata", trailing.get("x-trailing"), "yes")
    equal("binary metadata", trailing.get("x-blob-bin"), b"\x00\xff")
    equal("an empty message", unary(b"", timeout=5), b"")
    equal("a message of 4 MiB", len(unary(b"x" * LARGE, timeout=20)), LARGE)

    counted = channel.unary_stream(path("Count"))(b"100", timeout=5)
    equal("server streaming", [int(n) for n in counted], list(range(100)))
    total = channel.stream_unary(path("Total"))
    equal("client streaming", total((b"ab" for _ in range(100)), timeout=5), b"200")

    # Each message is sent only when the answer to the one before is there: nothing is held back.
    waiting = futures.Future()
    state = {"next": waiting}

    def turns():
        for n in range(20):
            yield b"turn %d" % n
            state["next"].result(timeout=5)
            state["next"] = futures.Future()

    said = []
    for message in channel.stream_stream(path("Echo"))(turns(), timeout=10):
        said.append(message)
        state["next"].set_result(None)
    equal("bidirectional streaming", said, [b"TURN %d" % n for n in range(20)])

    error = failure(
        "a status in trailers",
        lambda: channel.unary_unary(path("Fail"))(b"", timeout=5),
        grpc.StatusCode.FAILED_PRECONDITION,
        "no: 100 % wrong, \u00e9",
    )
    equal("its metadata", dict(error.trailing_metadata()).get("x-trailing"), "also here")
    failure(
        "a status after a message",
        lambda: list(channel.unary_stream(path("Half"))(b"x", timeout=5)),
        grpc.StatusCode.DATA_LOSS,
        "half of it",
    )
    failure(
        "a method that is not there",
        lambda: channel.unary_unary(path("None"))(b"", timeout=5),
        grpc.StatusCode.UNIMPLEMENTED,
    )
    failure(
        "a deadline",
        lambda: channel.unary_unary(path("Hang"))(b"", timeout=0.3),
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    failure(
        "a cluster that is not there",
        lambda: channel.unary_unary("/mesh.test.Missing/Call")(b"", timeout=5),
        grpc.StatusCode.UNAVAILABLE,
    )
    failure(
        "a timeout of the route",
        lambda: channel.unary_unary("/mesh.test.Slow/Call")(b"", timeout=5),
        grpc.StatusCode.UNAVAILABLE,
        "upstream request timeout",
    )
    many = [unary.future(b"%d" % n, timeout=20) for n in range(200)]
    equal("200 at once", [int(one.result()) for one in many], list(range(200)))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve()
    else:
        calls(sys.argv[2])
