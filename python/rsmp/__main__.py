"""``python -m rsmp [-m module | script.py] args...``: run an unmodified program on rsmp."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType

__all__ = ["main"]


def main(argv: list[str]) -> None:
    """Run the program named by ``argv`` (without the interpreter and ``-m rsmp``)."""
    import rsmp

    rsmp.install()
    path = argv[0]
    sys.argv[:] = argv
    import os

    sys.path[0] = os.path.dirname(os.path.abspath(path))
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__, __spec__=None)
    sys.modules["__main__"] = module
    sys.modules["__mp_main__"] = module
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module.__loader__ = loader
    code = compile(loader.get_data(path), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)


if __name__ == "__main__":
    main(sys.argv[1:])
