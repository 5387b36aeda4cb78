"""The interpreter's own multiprocessing tests for one start method.

Run it as a program under rsmp: ``python -m rsmp tests/cpython/suite.py spawn [unittest arguments]``.
Run plainly, ``python tests/cpython/suite.py spawn``, it tests the standard library.
"""

import os
import sys
import unittest

from test._test_multiprocessing import install_tests_in_module_dict

# Children import this file again, without the arguments of the command line.
METHOD = os.environ.setdefault("RSMP_SUITE_METHOD", sys.argv[1] if len(sys.argv) > 1 else "fork")
install_tests_in_module_dict(globals(), METHOD)

if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
