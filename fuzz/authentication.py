"""The authentication exchange: whatever the other side says, it is let in for the right answer only.

``python fuzz/authentication.py [LIBFUZZER OPTION...] [CORPUS]`` fuzzes it with atheris, which is installed for that by
hand; `attempt` is what it runs, and the tests run it over the kept corpus.

The first byte of an input says which side it talks to and how; the rest is all that this side ever hears, before the
stream ends. Challenges are the same each time, so that right answers can be among the inputs.
"""

import contextlib
import hmac
import os
import socket
import struct
import sys

import rsmp
from rsmp import connection

KEY = b"the key"
NONCE = bytes(range(64))
DIGESTS = ["md5", "sha256", "sha384", "sha3_256", "sha3_384"]
"""What the standard library accepts."""


def attempt(data: bytes) -> bool:
    """Authenticate somebody who says ``data[1:]``; whether it is let in. Raises for anything that must not happen."""
    if not data:
        return False
    ours, theirs = socket.socketpair()
    # All of it fits the socket's buffer: nobody has to wait.
    theirs.sendall(data[1 : 32 << 10])
    theirs.shutdown(socket.SHUT_WR)
    end = connection.Connection(ours.detach())
    server = data[0] % 2 == 0
    steps = [connection.deliver_challenge, connection.answer_challenge]
    try:
        with challenges(), end:
            if server:
                connection._authenticate(end, KEY, tuple(steps))
            else:
                for step in reversed(steps):
                    step(end, KEY)
    except (rsmp.AuthenticationError, EOFError, OSError):
        return False
    except ValueError as error:
        # What the standard library says of a digest that it does not know.
        assert "digest" in str(error), error
        return False
    finally:
        theirs.close()
    answer = messages(data[1:])[0 if server else 2]
    assert answer in answers(), f"let in for {answer!r}"
    return True


@contextlib.contextmanager
def challenges():
    """Make every challenge the same."""
    standard = connection._standard.os
    connection._standard.os = Constant()
    try:
        yield
    finally:
        connection._standard.os = standard


class Constant:
    """The module ``os``, with nothing random in it."""

    def __getattr__(self, name):
        return getattr(os, name)

    @staticmethod
    def urandom(size):
        """Return the first ``size`` bytes of the nonce."""
        return NONCE[:size]


def messages(data: bytes) -> list[bytes]:
    """Return what ``data`` says, read by hand."""
    found = []
    while len(data) >= 4:
        length = struct.unpack("!i", data[:4])[0]
        data = data[4:]
        if length < -1 or (length == -1 and len(data) < 8):
            break
        if length == -1:
            length, data = struct.unpack("!Q", data[:8])[0], data[8:]
        found.append(data[:length])
        data = data[length:]
    return found


def answers() -> list[bytes]:
    """Return the right answers to the constant challenge, in the formats of all versions."""
    length = getattr(connection._standard, "MESSAGE_LENGTH", 20)
    found = [hmac.new(KEY, NONCE[:length], "md5").digest()]
    for digest in DIGESTS:
        for challenge in (NONCE[:length], b"{sha256}" + NONCE[:length]):
            code = hmac.new(KEY, challenge, digest).digest()
            found += [code, b"{" + digest.encode() + b"}" + code]
    return found


def seeds() -> dict[str, bytes]:
    """Return inputs to begin with: right exchanges in the formats of all versions, and wrong ones."""
    parts = {
        "old": (hmac.new(KEY, NONCE[:20], "md5").digest(), b"#CHALLENGE#" + NONCE[:20]),
        "new": (
            b"{sha256}" + hmac.new(KEY, b"{sha256}" + NONCE[:40], "sha256").digest(),
            b"#CHALLENGE#{sha256}" + NONCE[:40],
        ),
        "weak": (b"{md4}" + bytes(16), b"#CHALLENGE#{md4}" + NONCE[:40]),
        "long": (bytes(300), b"#CHALLENGE#" + bytes(300)),
    }

    def frame(message):
        return struct.pack("!i", len(message)) + message

    found = {}
    for name, (answer, challenge) in parts.items():
        found[f"server-{name}"] = b"\0" + frame(answer) + frame(challenge) + frame(b"#WELCOME#")
        found[f"client-{name}"] = b"\1" + frame(challenge) + frame(b"#WELCOME#") + frame(answer)
        found[f"refused-{name}"] = b"\1" + frame(challenge) + frame(b"#FAILURE#")
    found["announces-much"] = b"\0" + struct.pack("!iQ", -1, 1 << 46) + b"x"
    return found


def main() -> None:
    """Fuzz the exchange."""
    import atheris

    for name in ("answer_challenge", "deliver_challenge"):
        for module in (connection, connection._standard):
            setattr(module, name, atheris.instrument_func(getattr(module, name)))
    atheris.Setup(sys.argv, attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
