"""A health discovery service for tests, on nothing but gRPC's own library and the published protobufs.

Every line of standard input is a HealthCheckSpecifier in protobuf's JSON form, which the latest
client is sent, or {"cut": true}, which ends its stream. Every line of standard output is a JSON
object: {"port": N} once it listens on 127.0.0.1, then one for each message of a client.
"""

import json
import queue
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import json_format

from envoy.service.health.v3 import hds_pb2, hds_pb2_grpc

SAY = threading.Lock()


def say(value):
    with SAY:
        print(json.dumps(value), flush=True)


class Service(hds_pb2_grpc.HealthDiscoveryServiceServicer):
    def __init__(self):
        self.commands = queue.Queue()

    def StreamHealthCheck(self, messages, context):
        commands = self.commands = queue.Queue()

        def read():
            try:
                for message in messages:
                    say(json_format.MessageToDict(message))
            except Exception:
                # The client left.
                commands.put({"cut": True})

        threading.Thread(target=read, daemon=True).start()
        while True:
            command = commands.get()
            if "cut" in command:
                return
            yield json_format.ParseDict(command, hds_pb2.HealthCheckSpecifier())


def main():
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    hds_pb2_grpc.add_HealthDiscoveryServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say({"port": port})
    for line in sys.stdin:
        service.commands.put(json.loads(line))


main()
