"""A control plane for tests, on nothing but gRPC's own library and the published protobufs.

Usage: server.py PORT

Serves ADS in both variants on 127.0.0.1. Every line of standard input is a JSON object:

    {"set": [RESOURCE, ...], "remove": [[TYPE_URL, NAME], ...]}   all of it is one version
    {"cut": true}                                                  ends every stream

The first line says what there is when it begins to listen. A RESOURCE is in protobuf's JSON form
with its "@type". Every line of standard output is a JSON object: {"port": N} once it listens, then
one for each request of a client.
"""

import hashlib
import json
import queue
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2, json_format

# Imported for their messages, which resources are made of.
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

PREFIX = "type.googleapis.com/"

# In the order in which they are sent, with the field that has the name.
KINDS = {
    PREFIX + "envoy.config.cluster.v3.Cluster": (cluster_pb2.Cluster, "name"),
    PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment": (
        endpoint_pb2.ClusterLoadAssignment,
        "cluster_name",
    ),
    PREFIX + "envoy.config.listener.v3.Listener": (listener_pb2.Listener, "name"),
    PREFIX + "envoy.config.route.v3.RouteConfiguration": (
        route_pb2.RouteConfiguration,
        "name",
    ),
    PREFIX + "envoy.config.route.v3.VirtualHost": (
        route_components_pb2.VirtualHost,
        "name",
    ),
}
VHDS = PREFIX + "envoy.config.route.v3.VirtualHost"
WILD = [url for url in KINDS if url.endswith(("Cluster", "Listener"))]


class World:
    """What there is, and who wants to hear of changes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.version = 0
        self.resources = {url: {} for url in KINDS}
        self.inboxes = set()

    def change(self, command):
        with self.lock:
            self.version += 1
            for value in command.get("set", []):
                packed = any_pb2.Any()
                json_format.ParseDict(value, packed)
                message, field = KINDS[packed.type_url]
                inner = message()
                packed.Unpack(inner)
                name = getattr(inner, field)
                # By contents: a client may remember versions of a server before this one.
                version = hashlib.sha256(packed.value).hexdigest()[:16]
                self.resources[packed.type_url][name] = (version, packed)
            for url, name in command.get("remove", []):
                self.resources[url].pop(name, None)
            self.tell("cut" if command.get("cut") else "changed")

    def tell(self, what):
        for inbox in self.inboxes:
            inbox.put((what, None))

    def of(self, url):
        with self.lock:
            return str(self.version), dict(self.resources.get(url, {}))


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Sotw:
    """A stream of the state of the world."""

    def __init__(self, world):
        self.world = world
        self.asked = {}
        self.count = 0

    def request(self, request):
        url, names = request.type_url, sorted(request.resource_names)
        say(
            variant="sotw",
            type=url,
            nonce=request.response_nonce,
            version=request.version_info,
            names=names,
            node=request.node.id,
            error=request.error_detail.message,
        )
        known = self.asked.get(url)
        if known is None:
            self.asked[url] = known = {"names": names, "nonce": "", "sent": None}
        elif request.response_nonce != known["nonce"]:
            return
        elif names == known["names"]:
            return
        known["names"] = names
        yield from self.send(url, known)

    def changed(self):
        for url in KINDS:
            known = self.asked.get(url)
            if known and self.visible(url, known)[1] != known["sent"]:
                yield from self.send(url, known)

    def visible(self, url, known):
        version, resources = self.world.of(url)
        if not (url in WILD and (not known["names"] or "*" in known["names"])):
            resources = {n: r for n, r in resources.items() if n in known["names"]}
        return version, resources

    def send(self, url, known):
        version, resources = self.visible(url, known)
        self.count += 1
        known["nonce"], known["sent"] = f"n{self.count}", resources
        yield discovery_pb2.DiscoveryResponse(
            version_info=version,
            type_url=url,
            nonce=known["nonce"],
            resources=[packed for _, packed in resources.values()],
        )


class Delta:
    """A stream of changes."""

    def __init__(self, world):
        self.world = world
        self.asked = {}
        self.count = 0

    def request(self, request):
        url = request.type_url
        more = set(request.resource_names_subscribe)
        less = set(request.resource_names_unsubscribe)
        say(
            variant="delta",
            type=url,
            nonce=request.response_nonce,
            names=sorted(more),
            dropped=sorted(less),
            initial=dict(request.initial_resource_versions),
            node=request.node.id,
            error=request.error_detail.message,
        )
        known = self.asked.get(url)
        first = known is None
        if first:
            known = {"wild": False, "names": set(), "held": {}}
            known["held"] = dict(request.initial_resource_versions)
            known["wild"] = url in WILD and (not more or "*" in more)
            self.asked[url] = known
        known["names"] |= more - {"*"}
        known["names"] -= less
        for name in less | more:
            # Who asks again wants to be sent it again, unless it said that it has it.
            if not first:
                known["held"].pop(name, None)
        if first or more:
            yield from self.send(url, known, more - {"*"}, first)

    def changed(self):
        for url in KINDS:
            if url in self.asked:
                yield from self.send(url, self.asked[url], set(), False)

    def send(self, url, known, asked, always):
        version, resources = self.world.of(url)
        held = known["held"]
        wanted = {n: r for n, r in resources.items() if known["wild"] or n in known["names"]}
        news = {n: r for n, r in wanted.items() if held.get(n) != r[0]}
        gone = {n for n in held if n not in wanted} | {n for n in asked if n not in wanted}
        if not (news or gone or always):
            return
        held.update({n: r[0] for n, r in news.items()})
        for name in gone:
            held.pop(name, None)
        # Of a virtual host that does not exist Envoy wants a resource with nothing in it.
        nothing = [n for n in asked if n not in wanted] if url == VHDS else []
        gone -= set(nothing)
        self.count += 1
        yield discovery_pb2.DeltaDiscoveryResponse(
            system_version_info=version,
            type_url=url,
            nonce=f"d{self.count}",
            resources=[
                discovery_pb2.Resource(name=n, version=v, resource=packed)
                for n, (v, packed) in news.items()
            ]
            + [discovery_pb2.Resource(name=n, aliases=[n]) for n in nothing],
            removed_resources=sorted(gone),
        )


class Service(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def __init__(self, world):
        self.world = world

    def StreamAggregatedResources(self, requests, context):
        yield from self.serve(requests, context, Sotw(self.world))

    def DeltaAggregatedResources(self, requests, context):
        yield from self.serve(requests, context, Delta(self.world))

    def serve(self, requests, context, session):
        inbox = queue.Queue()

        def read():
            try:
                for request in requests:
                    inbox.put(("request", request))
            except Exception:  # The client went away.
                pass
            inbox.put(("end", None))

        with self.world.lock:
            self.world.inboxes.add(inbox)
        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                what, request = inbox.get()
                if what == "end":
                    return
                if what == "cut":
                    context.abort(grpc.StatusCode.UNAVAILABLE, "cut by the test")
                yield from session.request(request) if what == "request" else session.changed()
        finally:
            with self.world.lock:
                self.world.inboxes.discard(inbox)


def main():
    world = World()
    world.change(json.loads(sys.stdin.readline()))
    server = grpc.server(futures.ThreadPoolExecutor(16))
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Service(world), server)
    port = server.add_insecure_port(f"127.0.0.1:{int(sys.argv[1])}")
    server.start()
    say(port=port)
    for line in sys.stdin:
        world.change(json.loads(line))
    # Whoever started this is gone.
    server.stop(None)


main()
