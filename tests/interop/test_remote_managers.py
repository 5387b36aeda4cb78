"""A manager of one library and a client of the other, over TCP, both ways."""

import subprocess
import sys
import textwrap

import pytest

SERVER = """
    from {library}.managers import SyncManager
    if __name__ == "__main__":
        manager = SyncManager(("127.0.0.1", 0), authkey=b"secret")
        shared = {{}}
        class Serving(SyncManager):
            pass
        Serving.register("shared", callable=lambda: shared, proxytype=Serving._registry["dict"][-1])
        server = Serving(("127.0.0.1", 0), authkey=b"secret").get_server()
        print(server.address[1], flush=True)
        server.serve_forever()
"""

CLIENT = """
    import sys
    from {library} import current_process
    from {library}.managers import DictProxy, RemoteError, SyncManager
    if __name__ == "__main__":
        current_process().authkey = b"secret"  # for the proxies inside
        class Using(SyncManager):
            pass
        Using.register("shared", proxytype=DictProxy)
        manager = Using(("127.0.0.1", int(sys.argv[1])), authkey=b"secret")
        manager.connect()
        shared = manager.shared()
        shared["number"] = 5
        shared["nested"] = manager.list([1, manager.dict(a=manager.Namespace(x=3))])
        shared["nested"].append(b"bytes" * 100_000)
        assert len(shared["nested"][2]) == 500_000
        assert shared["nested"][1]["a"].x == 3
        assert sorted(shared) == ["nested", "number"]
        items = manager.Queue()
        items.put((1, 2.5, None))
        assert items.get() == (1, 2.5, None)
        with manager.Lock():
            pass
        try:
            shared["missing"]
        except KeyError as error:
            assert error.args == ("missing",)
        else:
            raise AssertionError("no KeyError")
        try:
            shared._callmethod("no_such_method")
        except RemoteError as error:
            assert "no_such_method" in str(error)
        print("done", type(shared).__module__)
"""

READER = """
    import sys
    from {library} import current_process
    from {library}.managers import DictProxy, SyncManager
    if __name__ == "__main__":
        current_process().authkey = b"secret"  # for the proxies inside
        class Using(SyncManager):
            pass
        Using.register("shared", proxytype=DictProxy)
        manager = Using(("127.0.0.1", int(sys.argv[1])), authkey=b"secret")
        manager.connect()
        nested = manager.shared()["nested"]
        assert nested[0] == 1 and nested[1]["a"].x == 3, nested[:]
        wrong = Using(("127.0.0.1", int(sys.argv[1])), authkey=b"wrong")
        try:
            wrong.connect()
        except Exception as error:
            print("done", type(error).__name__)
"""

# "installed": rsmp under the name of the standard library.
LIBRARIES = ["multiprocessing", "rsmp", "installed"]


def command(tmp_path, text, library, *arguments):
    program = tmp_path / f"{library}_{abs(hash(text))}.py"
    program.write_text(textwrap.dedent(text.format(library="multiprocessing" if library == "installed" else library)))
    runner = ["-m", "rsmp"] if library == "installed" else []
    return [sys.executable, *runner, str(program), *arguments]


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("serving", LIBRARIES)
@pytest.mark.parametrize("using", LIBRARIES)
def test_client_and_server(serving, using, tmp_path):
    with subprocess.Popen(command(tmp_path, SERVER, serving), stdout=subprocess.PIPE, text=True) as server:
        try:
            port = server.stdout.readline().strip()
            assert run(*command(tmp_path, CLIENT, using, port))[0] == "done"
            for reading in LIBRARIES:
                assert run(*command(tmp_path, READER, reading, port)) == ["done", "AuthenticationError"]
        finally:
            server.kill()
