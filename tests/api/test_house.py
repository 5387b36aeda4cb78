"""The rules of the house (ARCHITECTURE.md names each with its guard here)."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "rsmp"
CORE = ROOT / "src" / "core"
BINDING = ROOT / "src" / "py"

pytestmark = pytest.mark.skipif(
    not CORE.is_dir(), reason="checks the Rust and Python sources, which come with a checkout and not with a wheel"
)


def rust(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.rs"))]


def code(path: Path) -> str:
    """The text of a Rust file without comments."""
    return re.sub(r"//[^\n]*", "", path.read_text())


def header(path: Path) -> str:
    return "\n".join(line for line in path.read_text().splitlines() if line.startswith("//!"))


def offenders(pattern: str, files: list[Path], *allowed: str) -> list[str]:
    """The lines of code that match ``pattern``, but for the files that are ``allowed`` it."""
    expression = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if not any(path.relative_to(ROOT).as_posix().startswith(prefix) for prefix in allowed)
        for line in code(path).splitlines()
        if expression.search(line)
    ]


def test_the_core_does_not_know_python():
    manifest = tomllib.loads((CORE / "Cargo.toml").read_text())
    named = {name for table in ("dependencies", "dev-dependencies") for name in manifest.get(table, {})}
    assert not {name for name in named if name.startswith(("pyo3", "numpy", "python"))}


def test_only_sys_makes_syscalls():
    # Types that describe a call's outcome or a descriptor are no calls.
    harmless = r"(?:io::Errno|fd::(?:OwnedFd|BorrowedFd|AsFd|AsRawFd))"
    pattern = rf"\b(?:libc::|rustix::(?!{harmless})|nix::|asm!)"
    assert not offenders(pattern, rust(CORE), "src/core/sys/", "src/core/clock.rs")


def test_the_python_side_waits_in_rust():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "select.select",
                "select.poll",
                "select.epoll",
            ):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert not found


def test_no_private_futex():
    assert not offenders(r"PRIVATE_FLAG|\bFlags::PRIVATE|_PRIVATE\b", rust(CORE, BINDING))


def test_no_parking_lot_in_shared_memory():
    folders = [CORE / name for name in ("shm", "sync", "ring")]
    assert not offenders(r"#\[repr\(C\)\][^;]*parking_lot", rust(*folders))


def test_atomics_are_named_in_one_place():
    assert not offenders(r"\bsync::atomic\b", rust(CORE), "src/core/atomic.rs")


def test_only_block_detaches():
    assert not offenders(r"\.detach\(|allow_threads|PyEval_SaveThread", rust(BINDING), "src/py/block.rs")


def test_one_conversion_of_errors():
    assert not offenders(r"for PyErr\b", rust(BINDING), "src/py/error.rs")


def test_no_slice_over_memory_that_a_peer_may_write():
    assert not offenders(r"slice::from_raw_parts|from_raw_parts_mut", rust(CORE), "src/core/sys/")


@pytest.mark.parametrize("path", rust(CORE, BINDING), ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_unsafe_code_says_why_it_is_sound(path):
    if re.search(r"allow\([^)]*unsafe_code", code(path)):
        assert re.search(r"^//! # Safety", path.read_text(), re.MULTILINE), "no `# Safety` section in the header"


@pytest.mark.parametrize(
    "path",
    [path for path in rust(CORE / "sync", CORE / "ring") if path.name != "mod.rs"],
    ids=lambda path: path.relative_to(ROOT / "src").as_posix(),
)
def test_shared_words_have_a_state_table(path):
    if re.search(r"\bAtomicU(32|64)\b", code(path)) and "Not shared." not in path.read_text():
        tables = header(path) + "\n".join(line for line in path.read_text().splitlines() if "///" in line)
        assert "|" in tables, "no state table"
        assert re.search(r"\bdie[sd]?\b|\bdead\b|\bdeath\b|killed", tables), "the table says nothing about a death"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_stdlib_imports_multiprocessing(path):
    if path.name == "_stdlib.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Programs for other processes.
            names = re.findall(r"^\s*(?:import|from) ([\w.]+)", node.value, re.MULTILINE)
        assert not [name for name in names if name.partition(".")[0] == "multiprocessing"], f"line {node.lineno}"


# Who may import whom when the module is loaded, as in the standard package; further imports wait for their function.
DIRECTION = {
    "process": set(),
    "reduction": {"context"},
    "context": {"process", "reduction"},
    "util": {"process"},
    "spawn": {"context", "process", "util"},
    "resource_tracker": {"spawn", "util"},
    "resource_sharer": {"context", "process", "util"},
    "forkserver": {"connection", "context", "process", "reduction", "resource_tracker", "spawn", "util"},
    "popen_fork": {"util"},
    "popen_spawn_posix": {"context", "popen_fork", "resource_tracker", "spawn", "util"},
    "popen_forkserver": {"connection", "context", "forkserver", "popen_fork", "spawn", "util"},
    "popen_spawn_win32": set(),
    "connection": {"context", "process", "reduction", "util"},
    "synchronize": {"context", "process", "reduction", "util"},
    "queues": {"connection", "context", "reduction", "synchronize", "util"},
    "heap": {"context", "reduction", "util"},
    "sharedctypes": {"context", "heap", "reduction"},
    "shared_memory": {"resource_tracker"},
    "pool": {"connection", "context", "process", "queues", "reduction", "util"},
    "managers": {"connection", "context", "pool", "process", "reduction", "shared_memory", "util"},
}


@pytest.mark.parametrize("name", sorted(DIRECTION))
def test_modules_import_in_the_standard_direction(name):
    imported = set()
    for node in ast.parse((PACKAGE / f"{name}.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "rsmp":
            module = (node.module or "").partition(".")[2]
            imported |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("rsmp.")}
    public = {module for module in imported if module in DIRECTION}
    assert public <= DIRECTION[name]


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/compat.md", "docs/design/0001-one-state.md"])
def test_pages_name_tests_that_exist(page):
    named = re.findall(r"`(tests/[\w/.-]+\.(?:py|rs|txt))(?:::(\w+))?`", (ROOT / page).read_text())
    assert named
    for file, name in named:
        path = ROOT / file
        assert path.is_file(), file
        assert not name or re.search(rf"(def|fn|class) {name}\b", path.read_text()), f"{file}::{name}"


def test_expected_failures_are_explained():
    explained = (ROOT / "docs" / "compat.md").read_text()
    for path in (ROOT / "tests" / "cpython" / "expected_failures").glob("*.txt"):
        for line in path.read_text().splitlines():
            name, _, reason = line.partition(" ")
            assert reason.strip(), f"{path.name}: {line}: no reason"
            assert name.rpartition(".")[2] in explained, f"{name} has no entry in docs/compat.md"
