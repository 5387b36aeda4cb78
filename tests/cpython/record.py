"""Runs tests of `suite` and writes one line of JSON when a test starts and one when it ends.

``record.py METHOD FILE [Class.test ...]``; without tests it writes the names of all. `run.py` calls it.
"""

import faulthandler
import json
import multiprocessing
import os
import sys
import time
import unittest

import suite


class Recorder(unittest.TextTestResult):
    """Writes what `run.py` reads, as it happens, so that a hang or a crash has a name."""

    file = None

    def note(self, test, outcome, detail=""):
        name = ".".join(test.id().split(" ")[0].split(".")[-2:])
        if name == "setUpClass":
            # "setUpClass (suite.Class)" decides about every test of the class.
            name = test.id().rpartition(".")[2].rstrip(")") + ".*"
        line = json.dumps({"test": name, "outcome": outcome, "detail": detail, "time": time.monotonic()})
        os.write(self.file, line.encode() + b"\n")

    def startTest(self, test):
        # Some tests of 3.14 leave none set, and those after them would be skipped.
        multiprocessing.set_start_method(suite.METHOD, force=True)
        super().startTest(test)
        self.note(test, "started")

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "failed", self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed", self._exc_info_to_string(err, test))

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note(test, "passed")


def main(path, names):
    # SIGABRT from run.py, when a test hangs, shows where.
    faulthandler.enable()
    classes = [value for value in vars(suite).values() if isinstance(value, type)]
    classes = [value for value in classes if issubclass(value, unittest.TestCase)]
    loader = unittest.defaultTestLoader
    if not names:
        with open(path, "w") as file:
            for test in (test for value in classes for test in loader.loadTestsFromTestCase(value)):
                print(".".join(test.id().split(".")[-2:]), file=file)
        return
    Recorder.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    tests = loader.loadTestsFromNames(names, suite)
    result = unittest.TextTestRunner(resultclass=Recorder, verbosity=2).run(tests)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3:])
