"""What the tests of processes share."""


def do_nothing():
    pass


def started(ctx, target, *args, **options):
    process = ctx.Process(target=target, args=args, **options)
    process.start()
    return process


def finish(*processes):
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
        process.close()
