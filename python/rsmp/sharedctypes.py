"""ctypes objects in shared memory, alone (`RawValue`, `RawArray`) or behind a lock (`Value`, `Array`).

The wrappers are native: numbers are read and written without going through ctypes, under the same lock. Everything
else, structures for example, is the ctypes object's own business, as in the standard module.
"""

from __future__ import annotations

import ctypes
import weakref

from rsmp import _rsmp, _stdlib, heap
from rsmp.context import _default_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


get_context = _default_context.get_context

_plain_types: dict[Any, str] = {
    type_: type_._type_
    for type_ in (
        *(ctypes.c_byte, ctypes.c_short, ctypes.c_int, ctypes.c_long, ctypes.c_longlong),
        *(ctypes.c_ubyte, ctypes.c_ushort, ctypes.c_uint, ctypes.c_ulong, ctypes.c_ulonglong),
        *(ctypes.c_float, ctypes.c_double, ctypes.c_bool, ctypes.c_char),
    )
}
"""The ctypes types whose values the engine reads and writes, with their codes."""


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """Return a ctypes object in shared memory, zero or made from ``args``."""
    obj = _new_value(_type_of(typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Return a ctypes array in shared memory: that many zeros, or the items of a sequence."""
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    array = _new_value(type_ * len(size_or_initializer))
    code, address, count = _numbers(array)
    if code is None or not _rsmp.fill_array(list(size_or_initializer), code, address, count):
        array.__init__(*size_or_initializer)
    return array


def _type_of(typecode_or_type: Any) -> Any:
    type_ = _standard.typecode_to_type.get(typecode_or_type, typecode_or_type)
    try:
        ctypes.sizeof(type_)
    except TypeError:
        codes = ", ".join(sorted(_standard.typecode_to_type))
        raise TypeError(f"bad typecode {typecode_or_type!r}: not a ctypes type and not one of {codes}") from None
    return type_


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes object behind ``lock``: a new RLock by default, none if False."""
    return _guarded(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes array behind ``lock``: a new RLock by default, none if False."""
    return _guarded(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def copy(obj: Any) -> Any:
    """Return a copy of a ctypes object in shared memory."""
    new_obj = _new_value(type(obj))
    ctypes.pointer(new_obj)[0] = obj
    return new_obj


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a wrapper of the ctypes object ``obj`` that takes ``lock``, a new RLock by default, for each access."""
    assert not isinstance(obj, _standard.SynchronizedBase), "object already synchronized"
    ctx = ctx or get_context()
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        if obj._type_ is ctypes.c_char:
            return SynchronizedString(obj, lock, ctx)
        return SynchronizedArray(obj, lock, ctx)
    cls = type(obj)
    try:
        wrapper = class_cache[cls]
    except KeyError:
        names = [field[0] for field in cls._fields_]
        properties = {name: _standard.make_property(name) for name in names}
        wrapper = class_cache[cls] = type("Synchronized" + cls.__name__, (SynchronizedBase,), properties)
    return wrapper(obj, lock, ctx)


def _guarded(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock in (True, None):
        ctx = ctx or get_context()
        lock = ctx.RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


def _new_value(type_: Any) -> Any:
    return rebuild_ctype(type_, heap.Block(ctypes.sizeof(type_)), None)


rebuild_ctype = _standard.rebuild_ctype
class_cache: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""The wrapper classes of structures."""


def _numbers(obj: Any) -> tuple[str | None, int, int]:
    """Return type code, address and count of the numbers in ``obj``; no code if only ctypes may touch it."""
    if obj._b_needsfree_:
        # Memory of its own, which ctypes.resize() can move.
        return None, 0, 0
    cls = type(obj)
    if not isinstance(obj, ctypes.Array):
        return _plain_types.get(cls), ctypes.addressof(obj), 1
    if cls.__getitem__ is not ctypes.Array.__getitem__ or cls.__setitem__ is not ctypes.Array.__setitem__:
        return None, 0, 0
    return _plain_types.get(obj._type_), ctypes.addressof(obj), len(obj)


class SynchronizedBase(_rsmp.SynchronizedBase, _standard.SynchronizedBase):  # type: ignore[name-defined,misc]
    """A ctypes object behind a lock."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        """Guard ``obj`` by ``lock``, a new RLock of ``ctx`` by default."""
        if not lock:
            lock = (ctx or get_context()).RLock()
        self._bind(obj, lock, *_numbers(obj))
        self.acquire = lock.acquire
        self.release = lock.release

    def __reduce__(self) -> Any:
        _standard.assert_spawning(self)
        return synchronized, (self._obj, self._lock)


class Synchronized(_rsmp.Synchronized, SynchronizedBase, _standard.Synchronized):  # type: ignore[name-defined,misc]
    """A simple ctypes object behind a lock."""


class SynchronizedArray(
    _rsmp.SynchronizedArray,
    SynchronizedBase,
    _standard.SynchronizedArray,  # type: ignore[name-defined,misc]
):
    """A ctypes array behind a lock."""


class SynchronizedString(SynchronizedArray, _standard.SynchronizedString):  # type: ignore[name-defined,misc]
    """A ctypes array of characters behind a lock."""


_stdlib.unannotate(__name__)
