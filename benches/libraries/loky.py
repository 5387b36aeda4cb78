"""An executor that starts its workers afresh instead of forking them."""

from typing import Any

from harness import POOL, Library
from libraries.executor import Methods


class Adapter(Library):
    """``loky.ProcessPoolExecutor`` with its own start method, which is nearest to spawn."""

    name = module = "loky"
    offers = POOL - {"pool imap_unordered"} | {"pool spawn"}

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return an executor."""

        class Pool(Methods, self.load().ProcessPoolExecutor):  # type: ignore[misc]
            pass

        return Pool(processes)
