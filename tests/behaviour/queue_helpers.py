"""What the tests of rsmp's queues share."""

MIB = 1 << 20


def put_all(q, items):
    for item in items:
        q.put(item)
