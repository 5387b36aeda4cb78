"""Pipe: exchanges between two processes."""

from typing import Any

from harness import Library, case, peers, timed


def echo(end: Any, connection: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        connection.send(connection.recv())


def echo_bytes(end: Any, connection: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        connection.send_bytes(connection.recv_bytes())


def exchange_bytes(library: Library, count: int, size: int) -> float:
    context, message = library.context(), b"x" * size
    ours, theirs = context.Pipe()
    with peers(context, echo_bytes, (theirs, count)):

        def work() -> None:
            for _ in range(count):
                ours.send_bytes(message)
                assert len(ours.recv_bytes()) == size

        return timed(work)


@case("ping-pong, int", count=10_000, needs="pipe")
def exchange_int(library: Library, count: int) -> float:
    context = library.context()
    ours, theirs = context.Pipe()
    with peers(context, echo, (theirs, count)):

        def work() -> None:
            for number in range(count):
                ours.send(number)
                assert ours.recv() == number

        return timed(work)


@case("ping-pong, 32 B", count=10_000, needs="pipe")
def exchange_32(library: Library, count: int) -> float:
    return exchange_bytes(library, count, 32)


@case("ping-pong, 1 MiB", count=200, needs="pipe")
def exchange_1m(library: Library, count: int) -> float:
    return exchange_bytes(library, count, 2**20)


@case("ping-pong, 32 MiB", count=6, needs="pipe")
def exchange_32m(library: Library, count: int) -> float:
    return exchange_bytes(library, count, 2**25)
