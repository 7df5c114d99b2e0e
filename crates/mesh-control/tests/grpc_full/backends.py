"""Plain gRPC servers, one for each name given: prints their ports, ends with its input.

What is called under /mesh.test.Echo/ answers with the server's name, but for
  Flaky  fails with the status in `x-status` as often as `x-fail` says, for each `x-id`;
  Hold   does not answer.
"""

import collections
import sys
import threading
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name.encode()

    def service(self, details):
        method = details.method.rsplit("/", 1)[-1]
        handle = {"Flaky": self.flaky, "Hold": self.hold}.get(method, self.say)
        return grpc.unary_unary_rpc_method_handler(handle)

    def say(self, request, context):
        return self.name

    def flaky(self, request, context):
        asked = dict(context.invocation_metadata())
        with LOCK:
            ATTEMPTS[asked["x-id"]] += 1
            again = ATTEMPTS[asked["x-id"]] <= int(asked["x-fail"])
        if again:
            context.abort(getattr(grpc.StatusCode, asked["x-status"]), "not yet")
        return self.name

    def hold(self, request, context):
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait()
        return self.name


# An identity is used with every server: retries go to any of them.
LOCK = threading.Lock()
ATTEMPTS = collections.Counter()

servers = []
for name in sys.argv[1:]:
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((Echo(name),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    servers.append(server)
sys.stdin.read()
for server in servers:
    server.stop(0)
