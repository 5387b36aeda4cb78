"""What the tests of rsmp's queues share."""

MIB = 1 << 20


def finish(*processes):
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
        process.close()


def put_all(q, items):
    for item in items:
        q.put(item)
