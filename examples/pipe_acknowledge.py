"""A sender waits for an acknowledgement of each message; closing its end tells the receiver that there are no more."""

from multiprocessing import Pipe, Process

MESSAGES = 5_000


def receive(connection, other_end):
    # A forked child has both ends: while it holds the sender's too, it would never see the end.
    other_end.close()
    count = size = 0
    while True:
        try:
            message = connection.recv()
        except EOFError:
            print(f"receiver: {count} messages with {size} characters, then the end", flush=True)
            return
        count += 1
        size += len(message["text"])
        connection.send(("received", message["number"]))


if __name__ == "__main__":
    ours, theirs = Pipe()
    receiver = Process(target=receive, args=(theirs, ours))
    receiver.start()
    theirs.close()
    for number in range(MESSAGES):
        ours.send({"number": number, "text": "message " * (number % 5)})
        assert ours.recv() == ("received", number)
    ours.close()
    receiver.join()
    print(f"sender: {MESSAGES} acknowledgements, exit code of the receiver {receiver.exitcode}")
