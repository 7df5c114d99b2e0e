"""A gRPC client with xDS that does what its input says, a JSON object per line.

Each command is answered by one line. Commands:
  {"do": "calls", target, method, metadata, count, timeout}  that many calls, one after the other
  {"do": "hold", target, count, fail}  that many calls that nobody answers, at once; cancelled when
                                       `fail` of them and no more have failed
  {"do": "start", target}              calls without an end; `recent` and `stop` say how they went
Answers count replies by their text and failures by their status.
"""

import collections
import json
import sys
import threading
import time

import grpc

CHANNELS = {}


def method(target, name):
    if target not in CHANNELS:
        CHANNELS[target] = grpc.insecure_channel(target)
    return CHANNELS[target].unary_unary("/mesh.test.Echo/" + name)


class Tally:
    def __init__(self):
        self.replies, self.errors = collections.Counter(), collections.Counter()

    def call(self, call, metadata, timeout):
        try:
            reply = call(b"x", timeout=timeout, metadata=metadata, wait_for_ready=True)
            self.replies[reply.decode()] += 1
        except grpc.RpcError as error:
            self.errors[error.code().name] += 1
            print(error.code(), error.details(), file=sys.stderr)

    def take(self):
        taken = {"replies": dict(self.replies), "errors": dict(self.errors)}
        self.replies.clear()
        self.errors.clear()
        return taken


class Load:
    def __init__(self, target):
        self.target, self.tally, self.over = target, Tally(), False
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        call = method(self.target, "Say")
        while not self.over:
            with self.lock:
                self.tally.call(call, [], 20)
            time.sleep(0.001)

    def take(self):
        with self.lock:
            return self.tally.take()

    def stop(self):
        self.over = True
        self.thread.join()
        return self.tally.take()


def calls(command):
    tally = Tally()
    call = method(command["target"], command["method"])
    metadata = [tuple(entry) for entry in command["metadata"]]
    for _ in range(command["count"]):
        tally.call(call, metadata, command["timeout"])
    return tally.take()


def hold(command):
    call = method(command["target"], "Hold")
    running = [call.future(b"x", timeout=30, wait_for_ready=True) for _ in range(command["count"])]
    until = time.monotonic() + 15
    while sum(one.done() for one in running) < command["fail"] and time.monotonic() < until:
        time.sleep(0.01)
    # Time for more of them to fail, if they do.
    time.sleep(0.3)
    errors = collections.Counter(one.code().name for one in running if one.done())
    for one in running:
        one.cancel()
    return {"replies": {}, "errors": dict(errors)}


load = None
for line in sys.stdin:
    command = json.loads(line)
    match command["do"]:
        case "calls":
            answer = calls(command)
        case "hold":
            answer = hold(command)
        case "start":
            load = Load(command["target"])
            answer = {"replies": {}, "errors": {}}
        case "recent":
            answer = load.take()
        case "stop":
            answer = load.stop()
    print(json.dumps(answer), flush=True)
