"""Sockets for the tests of `mesh intercept`: listeners that answer every connection with one line of
JSON about it, and a caller that prints the line. Only Python's own library."""

import argparse, encodings.idna, json, os, socket, struct, sys, threading
# What is loaded later would be out of reach for another user: idna above, for one.
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

V6_ORIGINAL_DST = 80  # IP6T_SO_ORIGINAL_DST, the same number as SO_ORIGINAL_DST
SO_MARK, IP_TRANSPARENT, IPV6_TRANSPARENT = 36, 19, 75


def original(connection, family):
    try:
        if family == socket.AF_INET:
            raw = connection.getsockopt(socket.SOL_IP, 80, 16)
            return [socket.inet_ntoa(raw[4:8]), struct.unpack(">H", raw[2:4])[0]]
        raw = connection.getsockopt(socket.IPPROTO_IPV6, V6_ORIGINAL_DST, 28)
        return [socket.inet_ntop(family, raw[8:24]), struct.unpack(">H", raw[2:4])[0]]
    except OSError:
        return None


def be_transparent(one, family):
    if family == socket.AF_INET:
        one.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    else:
        one.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


def answer(listener, family, port):
    while True:
        connection, peer = listener.accept()
        about = {
            "port": port,
            "peer": peer[0],
            "local": list(connection.getsockname()[:2]),
            "original": original(connection, family),
        }
        try:
            connection.sendall(json.dumps(about).encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            # What is not read would reset the connection.
            connection.settimeout(5)
            while connection.recv(1000):
                pass
        except OSError:
            pass
        connection.close()


def listen(ports, transparent):
    for port in ports:
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port in transparent:
                be_transparent(listener, family)
            listener.bind((any_address, port))
            listener.listen(16)
            threading.Thread(target=answer, args=(listener, family, port), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()  # until the test lets go
    os._exit(0)


class Application(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"peer": self.client_address[0], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class EveryAddress(ThreadingHTTPServer):
    address_family = socket.AF_INET6  # both families, unless the system says otherwise


def serve(port):
    server = EveryAddress(("::", port), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def get(options):
    os.setgroups([])
    os.setgid(options.gid)
    os.setuid(options.uid)
    source = (options.source, 0) if options.source else None
    connection = HTTPConnection(options.address, options.port, timeout=30, source_address=source)
    try:
        connection.request("GET", options.get)
        response = connection.getresponse()
        about = {"status": response.status, "body": response.read().decode()}
        for name, value in response.getheaders():
            about[name.lower()] = value
    except OSError as error:
        about = {"error": str(error)}
    print(json.dumps(about))


def call(options):
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    one = socket.socket(family)
    one.settimeout(30)
    if options.mark:
        one.setsockopt(socket.SOL_SOCKET, SO_MARK, options.mark)
    if options.source:
        be_transparent(one, family)
        one.bind((options.source, 0))
    # The socket belongs to whoever connects it, for netfilter.
    os.setgroups([])
    os.setgid(options.gid)
    os.setuid(options.uid)
    if not (options.mark or options.source):
        one = socket.socket(family)
        one.settimeout(30)
    try:
        one.connect((options.address, options.port))
        if options.say:
            one.sendall(options.say.encode())
        print(one.makefile().readline().strip() or json.dumps({"error": "ended without a word"}))
    except OSError as error:
        print(json.dumps({"error": str(error)}))


options = argparse.ArgumentParser()
options.add_argument("--listen", type=lambda text: [int(one) for one in text.split(",")])
options.add_argument("--transparent", type=int, action="append", default=[])
options.add_argument("--http", type=int, help="listen for HTTP here too")
options.add_argument("--get", help="a path to ask for by HTTP")
options.add_argument("--address")
options.add_argument("--port", type=int)
options.add_argument("--uid", type=int, default=1000)
options.add_argument("--gid", type=int, default=1000)
options.add_argument("--mark", type=int)
options.add_argument("--source")
options.add_argument("--say", help="say this first, for proxies that want to know what it is")
options = options.parse_args()
if options.http:
    serve(options.http)
if options.get:
    get(options)
elif options.listen:
    listen(options.listen, options.transparent)
else:
    call(options)
