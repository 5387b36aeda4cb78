"""Publish and subscribe over shared memory, without copies and without sleeping.

It moves bytes, not objects, to every subscriber rather than to one consumer, and leaves waiting to the program: here
the receiver looks again at once, which is as fast as it gets and takes a whole CPU. Comparable are the streams of bytes
from one process to another, each message copied in once and out once.
"""

import ctypes
import itertools
import os
import time
from multiprocessing.util import Finalize
from typing import Any

from harness import Library

BUFFERED = 64
"""Messages that may wait before the publisher does."""
numbers = itertools.count()


class Queue:
    """A service with one publisher and one subscriber; each end is opened by the process that first uses it."""

    def __init__(self, iceoryx2: Any, largest: int) -> None:
        self.iceoryx2 = iceoryx2
        self.largest = largest
        self.name = f"rsmp-bench-{os.getpid()}-{next(numbers)}"
        self.publisher: Any = None
        self.subscriber: Any = None

    def service(self) -> Any:
        """Open the service."""
        iceoryx2 = self.iceoryx2
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        builder = self.node.service_builder(iceoryx2.ServiceName.new(self.name))
        builder = builder.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(BUFFERED)
        return builder.open_or_create()

    def put(self, message: bytes) -> None:
        """Copy a message into shared memory and send it; wait while too many are under way."""
        if self.publisher is None:
            service = self.service()
            while not service.dynamic_config.number_of_subscribers:
                time.sleep(0.001)
            builder = service.publisher_builder().initial_max_slice_len(self.largest)
            self.publisher = builder.backpressure_strategy(self.iceoryx2.BackpressureStrategy.DiscardData).create()
        delivered = 0
        while not delivered:
            sample = self.publisher.loan_slice_uninit(len(message))
            ctypes.memmove(sample.payload_ptr, message, len(message))
            # Sent again while there is no room: its own strategy for that has lost messages here.
            delivered = sample.assume_init().send()

    def get(self) -> bytes:
        """Wait for a message and copy it out."""
        if self.subscriber is None:
            self.subscriber = self.service().subscriber_builder().create()
            # A process that ends without a word would stay a subscriber, to be waited for.
            Finalize(self, self.subscriber.delete, exitpriority=1)
        while (sample := self.subscriber.receive()) is None:
            pass
        payload = sample.payload()
        message = ctypes.string_at(payload.data_ptr, payload.number_of_elements)
        sample.delete()
        return message


class Adapter(Library):
    """``iceoryx2``."""

    name = module = "iceoryx2"
    offers = frozenset({"bytes queue"})

    def queue(self, largest: int = 64) -> Any:
        """Return an object with ``put`` and ``get`` for bytes."""
        return Queue(self.load(), largest)
