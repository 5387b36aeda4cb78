"""What the tests of connections share."""

import struct
import threading

LARGE = 1 << 20


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def frame(message):
    return struct.pack("!i", len(message)) + message
