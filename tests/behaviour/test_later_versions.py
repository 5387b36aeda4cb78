"""What later standard versions added, on every supported version."""

import inspect
import typing

import pytest

pytestmark = pytest.mark.rsmp_only("the standard library has these from 3.12, 3.13 or 3.14 on only")


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queue_types_are_subscriptable(mp, ctx, name):
    for make in (getattr(mp, name), getattr(ctx, name)):
        alias = make[int]
        assert typing.get_args(alias) == (int,)
        assert inspect.isclass(typing.get_origin(alias))
        queue = alias()
        assert isinstance(queue, typing.get_origin(alias))
        if hasattr(queue, "cancel_join_thread"):
            queue.cancel_join_thread()
        queue.close()
    assert inspect.ismethod(inspect.unwrap(getattr(mp, name)))


def test_the_queue_classes_are_subscriptable(mp):
    import importlib

    queues = importlib.import_module(f"{mp.__name__}.queues")
    for name in ("Queue", "JoinableQueue", "SimpleQueue"):
        assert typing.get_origin(getattr(queues, name)[int]) is getattr(queues, name)
