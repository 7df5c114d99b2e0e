"""A gRPC server that takes its listener over xDS: server.py ADDRESS. Ends with its input."""

import sys
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"served")


server = grpc.server(futures.ThreadPoolExecutor(4), xds=True)
server.add_generic_rpc_handlers((Echo(),))
credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
server.add_secure_port(sys.argv[1], credentials)
server.start()
print("started", flush=True)
sys.stdin.read()
server.stop(0)
