"""Bad peers: truncated and corrupt frames and authentication, sizes out of all proportion, silence."""

import hashlib
import hmac
import os
import random
import resource
import socket
import struct
import threading
import time
from pathlib import Path

from harness import Within, case, raises

from under_test import submodule

connection = submodule("connection")
AuthenticationError = submodule("context").AuthenticationError

# What a peer may make us raise: nothing else, and nothing worse.
EXPECTED = (EOFError, OSError, MemoryError)

KEY = b"the key"

REFUSALS = (AuthenticationError, AssertionError, EOFError, OSError, MemoryError, ValueError)


def pair():
    ours, theirs = socket.socketpair()
    return connection.Connection(ours.detach()), theirs


def frame(payload):
    return struct.pack("!i", len(payload)) + payload


@case()
def truncated_frames(ctx):
    message = frame(b"x" * 300)
    long = struct.pack("!iQ", -1, 300) + b"x" * 300
    for whole in (message, long):
        for cut in range(len(whole)):
            ours, theirs = pair()
            theirs.sendall(whole[:cut])
            theirs.close()
            raises((EOFError, OSError), ours.recv_bytes)
            ours.close()


@case()
def corrupt_frames(ctx):
    """Any bytes at all: an error or a message, in bounded time and memory."""
    seed = int(os.environ.get("RSMP_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    chance = random.Random(seed)
    good = frame(submodule("reduction").ForkingPickler.dumps({"key": [1, 2.5, "three", b"four" * 50]}))
    limit_memory()
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        ours, theirs = pair()
        theirs.sendall(bad[: chance.randrange(len(bad) + 1)] if chance.random() < 0.3 else bad)
        theirs.close()
        try:
            while True:
                ours.recv_bytes() if chance.random() < 0.5 else ours.recv()
        except Exception:  # what unpickling garbage raises is anybody's guess, but it is an exception
            pass
        ours.close()


def limit_memory(spare=512 << 20):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))


@case(standard="fails")
def announced_but_not_sent(ctx):
    limit_memory()
    for size in (1 << 31, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        for maxlength in (None, 1000):
            for sent in (b"", b"x" * 100_000):
                ours, theirs = pair()
                theirs.sendall(struct.pack("!iQ", -1, size) + sent)
                theirs.close()
                with Within(2):
                    raises(EXPECTED, ours.recv_bytes, maxlength)
                ours.close()
    for negative in (-2, -3, -(1 << 31)):
        ours, theirs = pair()
        theirs.sendall(struct.pack("!i", negative) + b"x" * 100)
        theirs.close()
        raises(EXPECTED, ours.recv_bytes)
        ours.close()


def receive(peer):
    try:
        return peer.recv(4096)
    except ConnectionResetError:
        # It closed with something of ours unread.
        return b""


def read_frame(peer):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack("!i", data[:4])[0]:
        got = receive(peer)
        if not got:
            return None
        data += got
    return data[4:]


def answer(challenge):
    """Return the frame that proves the key to whoever sent ``challenge``."""
    message = challenge[len(b"#CHALLENGE#") :]
    # The challenge of Python 3.11 is random, and may begin with a brace.
    if message.startswith(b"{sha256}"):
        return frame(b"{sha256}" + hmac.new(KEY, message, hashlib.sha256).digest())
    return frame(hmac.new(KEY, message, hashlib.md5).digest())


class Server:
    """A listener that accepts in a thread and counts how that ended."""

    def __init__(self, family):
        self.listener = connection.Listener(family=family, authkey=KEY, backlog=64)
        self.refused, self.served, self.other = 0, 0, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                with self.listener.accept() as client:
                    if client.recv() == "end":
                        return
                    client.send("served")
                    self.served += 1
            except (AuthenticationError, EOFError, OSError, ValueError, AssertionError):
                self.refused += 1
            except BaseException as error:
                self.other.append(error)

    def connect(self):
        family = socket.AF_INET if isinstance(self.listener.address, tuple) else socket.AF_UNIX
        peer = socket.socket(family)
        peer.connect(self.listener.address)
        peer.settimeout(5)
        return peer

    def check(self):
        with Within(3), connection.Client(self.listener.address, authkey=KEY) as client:
            client.send("hello")
            assert client.recv() == "served"

    def end(self):
        with connection.Client(self.listener.address, authkey=KEY) as client:
            client.send("end")
        self.thread.join(5)
        self.listener.close()
        assert not self.thread.is_alive() and not self.other, self.other


@case()
def clients_that_break_off_the_authentication(ctx):
    for family in ("AF_INET", "AF_UNIX"):
        server = Server(family)
        peer = server.connect()
        whole = answer(read_frame(peer)) + frame(b"#CHALLENGE#" + b"x" * 20)
        peer.close()
        for cut in range(len(whole)):
            with server.connect() as peer:
                response = answer(read_frame(peer)) + frame(b"#CHALLENGE#" + b"x" * 20)
                peer.sendall(response[:cut])
        server.check()
        server.end()
        assert server.refused == len(whole) + 1, server.refused


@case()
def clients_that_answer_wrongly(ctx):
    server = Server("AF_UNIX")
    with server.connect() as peer:
        length = len(answer(read_frame(peer)))
    for at in range(length):
        with server.connect() as peer:
            response = bytearray(answer(read_frame(peer)))
            response[at] ^= 0x40
            peer.sendall(response)
            peer.shutdown(socket.SHUT_WR)
            rest = read_frame(peer)
            assert rest is None or rest == b"#FAILURE#", rest
    for nonsense in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, struct.pack("!iQ", -1, 1 << 60),
                     frame(b"{md4}" + b"x" * 16), frame(b""), frame(b"x" * 255), frame(b"x" * 257), frame(b"{none}"),
                     frame(b"{md5")):  # fmt: skip
        with server.connect() as peer:
            peer.sendall(nonsense)
            peer.shutdown(socket.SHUT_WR)
            while receive(peer):
                pass
    server.check()
    server.end()
    assert server.served == 1


@case()
def servers_that_answer_wrongly(ctx):
    limit_memory()
    for sent in (b"", b"#", frame(b""), frame(b"#CHALLENGE#"), frame(b"nonsense"), struct.pack("!iQ", -1, 1 << 60),
                 frame(b"#CHALLENGE#{md4}" + b"x" * 40), frame(b"#CHALLENGE#" + b"x" * 300), b"\xff" * 100,
                 frame(b"#CHALLENGE#" + b"x" * 20) + frame(b"#FAILURE#"),
                 frame(b"#CHALLENGE#" + b"x" * 20) + frame(b"#WELCOME#")):  # fmt: skip
        listener = socket.socket(socket.AF_UNIX)
        address = "\0" + os.urandom(8).hex()
        listener.bind(address)
        listener.listen()

        def serve(listener=listener, sent=sent):
            peer, _ = listener.accept()
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
            try:
                while receive(peer):
                    pass
            except OSError:
                pass
            peer.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Within(3):
            raises(
                REFUSALS,
                connection.Client,
                address,
                authkey=KEY,
            )
        thread.join(5)
        listener.close()


@case(standard="hangs")
def silent_clients(ctx):
    connection.CONNECTION_TIMEOUT = 0.3
    server = Server("AF_INET")
    silent = [server.connect() for _ in range(3)]
    # One byte now and then is as good as silence.
    slow = server.connect()
    ended = threading.Event()

    def drip():
        try:
            while not ended.wait(0.1):
                slow.sendall(b"\0")
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    with Within(4):
        server.check()
    ended.set()
    thread.join()
    for peer in silent:
        peer.close()
    slow.close()
    server.end()
    assert server.refused == 4


@case()
def a_manager_with_bad_clients(ctx):
    with ctx.Manager() as manager:
        shared = manager.dict(a=1)
        silent = []
        for n in range(30):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(manager.address)
            if n % 3 == 0:
                peer.sendall(os.urandom(50))
                peer.close()
            elif n % 3 == 1:
                peer.sendall(struct.pack("!iQ", -1, 1 << 60))
                peer.close()
            else:
                silent.append(peer)
        with Within(4):
            shared["b"] = 2
            assert dict(shared) == {"a": 1, "b": 2}
            assert list(manager.list([1, 2])) == [1, 2]
        for peer in silent:
            peer.close()


class Runs:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@case()
def nothing_is_unpickled_before_authentication(ctx):
    path = f"/tmp/rsmp-fault-{os.urandom(8).hex()}"
    evil = frame(submodule("reduction").ForkingPickler.dumps(Runs(path)))
    server = Server("AF_UNIX")
    with server.connect() as peer:
        peer.sendall(evil * 3)
        peer.shutdown(socket.SHUT_WR)
        while receive(peer):
            pass
    server.check()
    server.end()
    with ctx.Manager() as manager:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(manager.address)
        peer.sendall(evil * 3)
        peer.close()
        assert list(manager.list([1])) == [1]
    time.sleep(0.05)
    assert not os.path.exists(path)
