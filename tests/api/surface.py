"""Compares two packages by ``inspect``: names, values, classes, signatures."""

import inspect
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

Signature = inspect.Signature

_PLAIN = (bool, int, float, str, bytes, tuple, type(None))


def missing(standard: ModuleType, ours: ModuleType, added: set[str]) -> list[str]:
    """Say what ``ours`` lacks or has otherwise than ``standard``, one line each.

    ``added`` holds the names ("queues.Queue.put") whose signatures have something more at the end.
    """
    where = standard.__name__.partition(".")[2]
    found = []
    for name in _names(standard):
        path = f"{where}.{name}" if where else name
        value = getattr(standard, name)
        if isinstance(value, ModuleType) and value.__name__.startswith(standard.__name__ + "."):
            continue  # a submodule is there once it is imported
        if not hasattr(ours, name):
            found.append(f"{path}: missing")
        else:
            found += differences(path, value, getattr(ours, name), added)
    if getattr(standard, "__all__", None) != getattr(ours, "__all__", None):
        found.append(f"{where}.__all__: {standard.__all__!r} became {getattr(ours, '__all__', None)!r}")
    return found


def differences(path: str, standard: Any, ours: Any, added: set[str]) -> list[str]:
    """Compare one function, class or constant."""
    if standard is ours:
        return []
    if isinstance(standard, type):
        return _class_differences(path, standard, ours, added)
    if isinstance(standard, FunctionType) or inspect.ismethod(standard):
        return _signature_differences(path, standard, ours, added)
    if isinstance(standard, _PLAIN) and standard != ours:
        return [f"{path}: {standard!r} became {ours!r}"]
    return []


def _class_differences(path: str, standard: type, ours: Any, added: set[str]) -> list[str]:
    if not (isinstance(ours, type) and issubclass(ours, standard)):
        return [f"{path}: {ours!r} is no subclass of the standard class"]
    found = []
    if standard.__name__ == path.rpartition(".")[2] != ours.__name__:
        found.append(f"{path}: is called {ours.__name__}")
    found += _signature_differences(path, standard, ours, added)
    for name in sorted(dir(standard)):
        value = inspect.getattr_static(standard, name)
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, FunctionType):
            found += _signature_differences(f"{path}.{name}", getattr(standard, name), getattr(ours, name), added)
        elif isinstance(value, property) and not _reads(inspect.getattr_static(ours, name)):
            found.append(f"{path}.{name}: no property or attribute any more")
    return found


def _reads(value: Any) -> bool:
    """Whether ``value`` in a class gives instances an attribute."""
    return hasattr(type(value), "__get__") and not callable(value)


def _signature_differences(path: str, standard: Any, ours: Any, added: set[str]) -> list[str]:
    expected, actual = _signature(standard), _signature(ours)
    if expected is None or expected == actual:
        return []
    if actual is None:
        return [f"{path}{expected}: has no signature"]
    if path in added and _extends(expected, actual):
        return []
    if path.endswith(("__init__", "__new__")) and (_forwards(actual) or _forwards(expected)):
        return []  # the class's own signature is compared
    if path.endswith("__") and _required(expected) == _required(actual):
        return []  # an operator, which the interpreter calls by position
    if _forwards(expected):
        return []  # whatever it forwards to decides
    return [f"{path}{expected} became {path.rpartition('.')[2]}{actual}"]


def _signature(value: Any) -> Signature | None:
    """Return what a caller may pass.

    A native method's ``self`` is positional, which no call shows; a parameter whose default is a built-in function only
    saves the standard method a look-up.
    """
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return None
    parameters = [p for p in signature.parameters.values() if not isinstance(p.default, BuiltinFunctionType)]
    positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    # A mutable default holds what earlier calls left in it.
    parameters = [p.replace(default=type(p.default)) if isinstance(p.default, (dict, list)) else p for p in parameters]
    if positional == ["self"]:
        parameters[0] = parameters[0].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return signature.replace(parameters=parameters)


def _extends(expected: Signature, actual: Signature) -> bool:
    """Whether ``actual`` takes every call that ``expected`` takes: the same parameters, then optional ones."""
    ours = dict(actual.parameters)
    return all(ours.pop(name, None) == parameter for name, parameter in expected.parameters.items()) and all(
        parameter.default is not Signature.empty or parameter.kind is parameter.VAR_KEYWORD
        for parameter in ours.values()
    )


def _required(signature: Signature) -> int:
    return sum(parameter.default is Signature.empty for parameter in signature.parameters.values())


def _forwards(signature: Signature) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds


def _names(module: ModuleType) -> list[str]:
    return sorted(name for name in dir(module) if not (name.startswith("__") and name.endswith("__")))
