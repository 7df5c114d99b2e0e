"""Both ends of connections that end badly: servers that a proxy connects to, and callers of it. Reads
a case per line, `PORT TLS HOW`, and answers each with a line of JSON: what the other end saw. Only
Python's own library."""

import json, os, queue, socket, ssl, struct, sys, threading

authority, certificate, key = sys.argv[1:4]
PATIENCE = 30
seen = queue.Queue()


def reset(one):
    """Closes the socket below, so that the other end gets RST."""
    descriptor = one.detach()
    below = socket.socket(fileno=descriptor)
    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    below.close()


def end_of(one):
    """How a connection ends on which nothing more is said."""
    one.settimeout(PATIENCE)
    try:
        said = one.recv(100)
        return "end" if not said else f"more: {said!r}"
    except ssl.SSLEOFError:
        return "end without close_notify"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return f"error: {error}"


def answer(one, kind):
    if kind == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        one = context.wrap_socket(one, server_side=True, suppress_ragged_eofs=False)
    if kind == "connect":
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(1000)
        one.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    how = one.recv(100)
    one.sendall(b"ok")
    if how == b"upstream-reset":
        go.get()
        reset(one)
    elif how == b"upstream-end":
        go.get()
        one.close()
    else:
        seen.put(end_of(one))
        one.close()


go = queue.Queue()


def serve(kind):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)

    def accept():
        while True:
            one = listener.accept()[0]
            threading.Thread(target=answer, args=(one, kind), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def call(port, secured, how):
    one = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if secured:
        context = ssl.create_default_context(cafile=authority)
        one = context.wrap_socket(one, server_hostname="a.test", suppress_ragged_eofs=False)
    one.sendall(how.encode())
    assert one.recv(2) == b"ok"
    # Whatever happens next, everything that was said has come.
    if how.startswith("upstream"):
        go.put(None)
        return end_of(one)
    if how == "caller-reset":
        reset(one)
    else:
        one.close()
    return seen.get(timeout=PATIENCE)


print(json.dumps({kind: serve(kind) for kind in ("plain", "tls", "connect")}), flush=True)
for line in sys.stdin:
    port, secured, how = line.split()
    try:
        result = call(int(port), secured == "tls", how)
    except Exception as error:
        result = f"failed: {error!r}"
    print(json.dumps(result), flush=True)
os._exit(0)
