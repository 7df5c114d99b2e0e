"""A name server that knows one address, and a question over TCP. Only Python's own library."""

import argparse, encodings.idna, json, os, socket, struct, sys, threading


def question_end(message):
    at = 12
    while message[at]:
        at += message[at] + 1
    return at + 5


def answer(query, address):
    end = question_end(query)
    kind = struct.unpack(">H", query[end - 4 : end - 2])[0]
    count = 1 if kind == 1 else 0
    head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, count, 0, 0)
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(address)
    return head + query[12:end] + record * count


def serve(options):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((options.serve, 53))
    print("ready", flush=True)

    def loop():
        while True:
            query, client = one.recvfrom(4096)
            one.sendto(answer(query, options.address), client)

    threading.Thread(target=loop, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


def ask(options):
    os.setgroups([])
    os.setgid(1000)
    os.setuid(1000)
    name = b"".join(bytes([len(part)]) + part.encode() for part in options.ask.split("."))
    query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"
    with socket.create_connection((options.server, 53), timeout=30) as one:
        one.sendall(struct.pack(">H", len(query)) + query)
        stream = one.makefile("rb")
        response = stream.read(struct.unpack(">H", stream.read(2))[0])
    count = struct.unpack(">H", response[6:8])[0]
    print(json.dumps({"count": count, "address": socket.inet_ntoa(response[-4:])}))


options = argparse.ArgumentParser()
options.add_argument("--serve")
options.add_argument("--address")
options.add_argument("--ask")
options.add_argument("--server")
options = options.parse_args()
serve(options) if options.serve else ask(options)
