from collections.abc import Callable, Iterable
from multiprocessing import context, synchronize
from multiprocessing.context import *
from multiprocessing.context import AuthenticationError as AuthenticationError
from multiprocessing.context import BufferTooShort as BufferTooShort
from multiprocessing.context import ForkProcess as ForkProcess
from multiprocessing.context import ForkServerProcess as ForkServerProcess
from multiprocessing.context import Process as Process
from multiprocessing.context import ProcessError as ProcessError
from multiprocessing.context import SpawnProcess as SpawnProcess
from multiprocessing.context import TimeoutError as TimeoutError
from multiprocessing.context import assert_spawning as assert_spawning
from multiprocessing.context import get_spawning_popen as get_spawning_popen
from multiprocessing.context import set_spawning_popen as set_spawning_popen
from typing import Any, Literal, overload

from rsmp import pool

class BaseContext(context.BaseContext):
    def Lock(self, *, robust: bool = False) -> synchronize.Lock: ...
    def RLock(self, *, robust: bool = False) -> synchronize.RLock: ...
    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        retries: int = 0,
    ) -> pool.Pool: ...
    def set_forkserver_preload(
        self, module_names: list[str], *, on_error: Literal["ignore", "warn", "fail"] = "ignore"
    ) -> None: ...
    @overload
    def get_context(self, method: None = None) -> DefaultContext: ...
    @overload
    def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...
    @overload
    def get_context(self, method: Literal["fork"]) -> ForkContext: ...
    @overload
    def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...
    @overload
    def get_context(self, method: str) -> BaseContext: ...

class DefaultContext(BaseContext, context.DefaultContext): ...
class ForkContext(BaseContext, context.ForkContext): ...
class SpawnContext(BaseContext, context.SpawnContext): ...
class ForkServerContext(BaseContext, context.ForkServerContext): ...

_default_context: DefaultContext
