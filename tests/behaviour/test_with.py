"""`with` on locks and semaphores: the methods that it looks up, as programs and tools see them."""

import gc
import inspect
import pickle
import threading
import time
import types
import weakref
from unittest import mock

import pytest

from under_test import submodule

NAMES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]


@pytest.fixture(params=NAMES)
def lock(mp, request):
    return getattr(mp, request.param)()


@pytest.mark.parametrize("name", ["__enter__", "__exit__"])
def test_a_bound_method_tells_what_it_is(lock, name):
    method = getattr(lock, name)
    assert callable(method)
    assert inspect.isroutine(method)
    assert method.__name__ == name
    assert method.__qualname__.endswith(f".{name}")
    assert method.__self__ is lock
    assert list(inspect.signature(method).parameters) == ["args"] * (name == "__exit__")
    assert name in repr(method)
    assert not hasattr(method, "something")
    with pytest.raises(AttributeError):
        method.something = 1


def test_bound_methods_compare_by_their_object(mp, lock):
    assert lock.__enter__ == lock.__enter__
    assert hash(lock.__enter__) == hash(lock.__enter__)
    assert lock.__enter__ != lock.__exit__
    assert lock.__enter__ != mp.Lock().__enter__
    assert lock.__enter__ != 1
    assert {lock.__exit__: 1}[lock.__exit__] == 1


def test_they_may_be_kept_and_called(lock):
    enter, leave = lock.__enter__, lock.__exit__
    for _ in range(3):
        assert enter() is True
        assert leave(None, None, None) is None
    assert type(lock).__enter__(lock) is True
    assert type(lock).__exit__(lock, None, None, None) is None
    assert inspect.getattr_static(lock, "__enter__").__get__(lock)() is True
    lock.release()
    assert lock.acquire(False)


def test_arguments_that_they_do_not_take(lock):
    with pytest.raises(TypeError):
        lock.__enter__(1)
    with pytest.raises(TypeError):
        lock.__enter__(block=True)
    with pytest.raises(TypeError):
        lock.__exit__(kind=None)
    with pytest.raises((TypeError, AttributeError)):
        type(lock).__enter__(3)


@pytest.mark.rsmp_only("the standard library's methods are functions, which bind to anything")
def test_they_bind_to_locks_only(lock):
    for name in ("__enter__", "__exit__"):
        found = inspect.getattr_static(lock, name)
        assert inspect.ismethoddescriptor(found)
        with pytest.raises(TypeError):
            found.__get__(3)
        with pytest.raises(TypeError):
            found(3)
        assert found(lock, *[None] * (name == "__exit__")) is (True if name == "__enter__" else None)


@pytest.mark.rsmp_only("the standard library pickles locks only while a process starts")
def test_they_pickle_as_other_bound_methods_do(lock):
    assert lock.__enter__.__reduce_ex__(pickle.DEFAULT_PROTOCOL) == (getattr, (lock, "__enter__"))


def test_a_subclass_may_replace_them(mp):
    seen = []

    class Loud(type(mp.Lock())):
        def __enter__(self):
            seen.append("enter")
            return super().__enter__()

        def __exit__(self, *args):
            seen.append("exit")
            return super().__exit__(*args)

    lock = Loud(ctx=mp.get_context())
    with lock as entered:
        assert entered is True
        assert not lock.acquire(False)
    assert lock.acquire(False)
    assert seen == ["enter", "exit"]


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_a_context_makes_what_stands_in_the_module(mp, name):
    module = submodule("synchronize")
    with mock.patch.object(module, name) as made:
        assert getattr(mp, name)() is made.return_value
    with mock.patch.object(getattr(module, name), "__init__", return_value=None) as init:
        getattr(mp, name)()
        init.assert_called_once()

    class Named(getattr(module, name)):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.label = "mine"

    with mock.patch.object(module, name, Named):
        assert getattr(mp, name)().label == "mine"
    with getattr(mp, name)() as entered:
        assert entered is True


def test_mocks_take_their_place_and_give_it_back(lock):
    before = inspect.getattr_static(lock, "__enter__")
    with mock.patch.object(type(lock), "__enter__") as enter, mock.patch.object(type(lock), "__exit__") as leave:
        with lock as entered:
            assert entered is enter.return_value
        assert leave.call_args.args[-3:] == (None, None, None)
    assert inspect.getattr_static(lock, "__enter__") is before
    with lock as entered:
        assert entered is True
    assert lock.acquire(False)


def test_a_cycle_through_one_is_collected(mp):
    lock = mp.Lock()
    lock.enter = lock.__enter__
    seen = weakref.ref(lock)
    assert gc.is_tracked(lock.enter)
    assert lock in gc.get_referents(lock.enter)
    del lock
    gc.collect()
    assert seen() is None


def test_a_lock_goes_when_its_methods_do(mp):
    lock = mp.Lock()
    seen, methods = weakref.ref(lock), [lock.__exit__ for _ in range(20)]
    del lock
    assert methods[-1].__name__ == "__exit__"
    assert seen() is not None
    methods.clear()
    gc.collect()
    assert seen() is None


def test_more_at_once_than_are_kept(mp):
    locks = [mp.Lock() for _ in range(30)]
    for _ in range(3):
        bound = [(lock.__enter__, lock.__exit__) for lock in locks]
        assert all(enter() for enter, _ in bound)
        assert not any(lock.acquire(False) for lock in locks)
        for (_, leave), lock in zip(bound, locks, strict=True):
            assert leave.__self__ is lock
            leave(None, None, None)
    with locks[0], locks[1], locks[2], locks[3], locks[4], locks[5]:
        assert not locks[5].acquire(False)
    assert all(lock.acquire(False) for lock in locks)


@pytest.mark.rsmp_only("the standard library's methods are functions, bound anew each time")
def test_what_the_collector_knows_of_bound_methods_can_be_looked_at(mp):
    lock = mp.Lock()
    kind = type(lock.__enter__)
    if kind is types.BuiltinMethodType:
        pytest.skip("from Python 3.14 on `with` calls the methods unbound, and rsmp keeps no bound ones")
    with lock:
        pass
    found = [each for each in gc.get_objects() if type(each) is kind]
    for each in found:
        assert each.__name__ in ("__enter__", "__exit__")
        assert "Lock" in repr(each) or "Semaphore" in repr(each)
        assert each == each and hash(each) == hash(each)
        with pytest.raises(TypeError):
            each(1, 2, key=3)
        with pytest.raises(TypeError):
            each()
    for _ in range(3):
        with lock, mp.RLock():
            assert not lock.acquire(False)
    assert lock.acquire(False)


def test_many_threads_at_once(mp):
    shared, own, total = mp.Lock(), [mp.RLock() for _ in range(4)], 0

    def work(mine):
        nonlocal total
        for _ in range(2000):
            with mine, mine, shared:
                total += 1

    threads = [threading.Thread(target=work, args=(mine,)) for mine in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 8000


def test_a_subclass_may_have_any_private_name(mp):
    class Named(type(mp.Lock())):
        def _acquire(self, *args):
            raise AssertionError

        _release = _enter = _acquire

    lock = Named(ctx=mp.get_context())
    done = []

    def work():
        with lock:
            done.append(lock.acquire(False))

    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.05)
        assert not done and not lock.acquire(timeout=0.01)
    thread.join()
    assert done == [False]
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()
