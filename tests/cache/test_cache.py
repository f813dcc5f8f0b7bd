"""The cache under everything that disks, rights, neighbours and sudden death do to it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from spattn.cache import fingerprint as versions
from spattn.cache.private_files import claim_directory
from spattn.cache.records import digest
from spattn.cache.store import Cache, default_cache
from spattn.errors import ArgumentError

TEXT = "def kernel():\n    return 'ä\r\n'\n"
KEY = digest("a launch")
DAY = 86400.0
posix = pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> Cache:
    return Cache(root)


def holds(path: Path, text: str = TEXT) -> bool:
    return path.read_bytes() == text.encode()


def set_age(path: Path, seconds: float) -> None:
    when = time.time() - seconds
    os.utime(path, (when, when))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ------------------------------------------------------------------------------------------------------ what it is for


def test_a_text_is_filed_once_under_its_digest(cache, root):
    path = cache.publish(TEXT)
    before = path.stat()
    assert holds(path)
    assert path.name == digest(TEXT) + ".py"
    assert root in path.parents
    assert cache.publish(TEXT) == path
    assert path.stat().st_ino == before.st_ino


def test_another_suffix_is_another_file(cache):
    assert cache.publish(TEXT, ".ptx") != cache.publish(TEXT, ".py")


def test_a_record_comes_back(cache, root):
    assert cache.read_json(KEY) is None
    cache.write_json(KEY, {"block_m": 128, "ms": 0.1})
    cache.write_json(KEY, {"block_m": 64, "ms": 0.05})
    assert cache.read_json(KEY) == Cache(root, "ro").read_json(KEY) == {"block_m": 64, "ms": 0.05}


@posix
def test_what_is_made_is_private(cache, root):
    path = cache.publish(TEXT)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (root, path.parent, path)] == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("suffix", ["", "py", ".", "./../x", ".json", ".bad", ".py/x", ".p\0", ".toolongname"])
def test_a_suffix_cannot_lead_elsewhere(cache, suffix):
    with pytest.raises(ValueError, match="suffix"):
        cache.publish(TEXT, suffix)


@pytest.mark.parametrize("key", ["", "../../x", "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
def test_a_key_is_a_digest_and_nothing_else(cache, key):
    with pytest.raises(ValueError, match="digest"):
        cache.write_json(key, {})
    with pytest.raises(ValueError, match="digest"):
        cache.read_json(key)


def test_versions_do_not_share_entries(cache, root, monkeypatch):
    path = cache.publish(TEXT)
    cache.write_json(KEY, {"new": 1})
    monkeypatch.setattr("spattn.cache.store.fingerprint", lambda: "0" * 16)
    assert cache.read_json(KEY) is None
    assert cache.publish(TEXT).parent != path.parent
    assert len(cache.entries()) == 3


def test_the_fingerprint_follows_the_versions(monkeypatch):
    before = versions.fingerprint.__wrapped__()
    assert before == versions.fingerprint()
    monkeypatch.setattr(versions, "__version__", "99")
    assert versions.fingerprint.__wrapped__() != before


# ------------------------------------------------------------------------------------------------------ modes and homes


def test_off_leaves_no_trace(root):
    cache = Cache(root, "off")
    path = cache.publish(TEXT)
    cache.write_json(KEY, {"a": 1})
    assert holds(path)
    assert cache.publish(TEXT) == path
    assert cache.read_json(KEY) == {"a": 1}
    assert not root.exists()


def test_read_only_reads_and_does_not_write(cache, root, caplog):
    path = cache.publish(TEXT)
    reader = Cache(root, "ro")
    assert reader.publish(TEXT) == path
    other = reader.publish(TEXT + "#")
    assert holds(other, TEXT + "#")
    assert root not in other.parents
    assert reader.prune() == reader.clear() == []
    assert warnings_of(caplog) == []


def test_read_only_of_nothing_is_silent(root, caplog):
    assert holds(Cache(root, "ro").publish(TEXT))
    assert not root.exists()
    assert warnings_of(caplog) == []


def test_the_private_directory_goes_with_the_process(tmp_path):
    code = "from spattn.cache.store import Cache; print(Cache(None).publish('x = 1'))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""


def test_the_environment_names_root_and_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATTN_CACHE_DIR", str(tmp_path / "there"))
    monkeypatch.setenv("SPATTN_CACHE", "ro")
    cache = default_cache.__wrapped__()
    assert (cache.root, cache.mode) == (tmp_path / "there", "ro")


def test_an_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv("SPATTN_CACHE", "sometimes")
    with pytest.raises(ArgumentError, match="'sometimes'.*\n.*rw, ro or off"):
        default_cache.__wrapped__()


@posix
@pytest.mark.parametrize("named", [None, "~/cache"])
def test_without_a_home_it_stays_in_memory(named, monkeypatch, caplog):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where HOME is missing and the user unknown
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPATTN_CACHE_DIR", raising=False)
    if named:
        monkeypatch.setenv("SPATTN_CACHE_DIR", named)
    cache = default_cache.__wrapped__()
    assert cache.root is None
    assert holds(cache.publish(TEXT))
    assert len(warnings_of(caplog)) == 1
    assert not Path("~").exists()


# --------------------------------------------------------------------------------------------- roots not to be trusted


def _a_file(path: Path) -> None:
    path.write_text("not a directory")


def _a_link(path: Path) -> None:
    (path.parent / "target").mkdir(mode=0o700)
    path.symlink_to(path.parent / "target")


def _a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _writable_by(mode: int):
    def make(path: Path) -> None:
        path.mkdir()
        path.chmod(mode)

    return make


ROOTS = {
    "a file": _a_file,
    "a link": _a_link,
    "a dangling link": _a_dangling_link,
    "writable by the group": _writable_by(0o770),
    "writable by the world": _writable_by(0o707),
}


def assert_kept_in_memory(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Answers come, nothing is written under the root, and one line says so."""
    cache = Cache(root)
    for text in (TEXT, TEXT + "#"):
        path = cache.publish(text)
        assert holds(path, text)
        assert not path.is_relative_to(root)
    cache.write_json(KEY, {"a": 1})
    assert cache.read_json(KEY) == {"a": 1}
    assert len(warnings_of(caplog)) == 1
    assert str(root) in caplog.text


@posix
@pytest.mark.parametrize("make", ROOTS.values(), ids=ROOTS.keys())
def test_a_root_not_to_be_trusted_is_not_used(make, root, caplog):
    make(root)
    assert_kept_in_memory(root, caplog)
    assert not root.is_dir() or list(root.iterdir()) == []


@posix
def test_a_root_below_a_file_or_in_a_place_without_files(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert_kept_in_memory(tmp_path / "file" / "cache", caplog)
    caplog.clear()
    assert_kept_in_memory(Path("/proc/self/cache"), caplog)


@posix
def test_a_parent_that_anyone_may_write_lets_the_root_be_replaced(tmp_path, caplog):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert_kept_in_memory(open_to_all / "cache", caplog)
    open_to_all.chmod(0o1777)
    claim_directory(open_to_all / "cache", create=True)


@posix
def test_a_shelf_that_is_a_link_is_not_used(root, tmp_path, caplog):
    root.mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (root / versions.fingerprint()).symlink_to(tmp_path / "elsewhere")
    assert holds(Cache(root).publish(TEXT))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(warnings_of(caplog)) == 1


@as_root
def test_a_root_of_another_user_is_not_used(root, caplog):
    root.mkdir(mode=0o700)
    os.chown(root, 12345, 12345)
    assert_kept_in_memory(root, caplog)


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_in_our_root(mode):
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        root = Path(base) / "cache"
        Cache(root).publish(TEXT)
        root.chmod(mode)
        assert _in_child(_publish_as_nobody, root) == 0


def _publish_as_nobody(root: Path) -> bool:
    os.setegid(65534)
    os.seteuid(65534)
    tempfile.tempdir = None
    path = Cache(root).publish(TEXT)
    return holds(path) and not path.is_relative_to(root)


@as_root
@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_full_disk(tmp_path, caplog):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small tmpfs")
    try:
        cache = Cache(disk / "cache")
        kept = cache.publish(TEXT)
        long = "# " + "x" * 200_000
        assert holds(cache.publish(long), long)
        assert cache.publish(TEXT) == kept
        assert [entry.path for entry in cache.entries()] == [kept]
        assert not list(kept.parent.glob(".tmp-*"))
        assert len(warnings_of(caplog)) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails(cache, failing, monkeypatch, caplog):
    kept = cache.publish(TEXT)
    real = getattr(os, failing)

    def fail(*arguments, **keywords):
        monkeypatch.setattr(os, failing, real)  # the next disk is whole
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    other = cache.publish(TEXT + "#")
    assert holds(other, TEXT + "#")
    assert not other.is_relative_to(cache.root)
    assert [entry.path for entry in cache.entries()] == [kept]
    assert not list(kept.parent.glob(".tmp-*"))
    assert len(warnings_of(caplog)) == 1


# ------------------------------------------------------------------------------------------------------ damaged entries


def _flip(payload: bytes) -> bytes:
    return payload[:-3] + bytes([payload[-3] ^ 4]) + payload[-2:]


DAMAGE = {
    "empty": lambda payload: b"",
    "truncated": lambda payload: payload[: len(payload) // 2],
    "a bit flipped": _flip,
    "longer": lambda payload: payload + b"import os\n",
    "garbage": lambda payload: bytes(range(256)),
    "deep": lambda payload: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_text_is_set_aside_and_written_anew(cache, damage, caplog):
    path = cache.publish(TEXT)
    path.write_bytes(damage(TEXT.encode()))
    assert cache.verify() == [path]
    path.write_bytes(damage(TEXT.encode()))
    assert cache.publish(TEXT) == path
    assert holds(path)
    assert path.with_name(path.name + ".bad").read_bytes() == damage(TEXT.encode())
    assert cache.verify() == []
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_record_is_set_aside(cache, damage, caplog):
    cache.write_json(KEY, {"block_m": 128})
    [entry] = cache.entries()
    sound = entry.path.read_bytes()
    entry.path.write_bytes(damage(sound))
    assert cache.read_json(KEY) is None
    assert cache.entries() == []
    cache.write_json(KEY, {"block_m": 64})
    assert cache.read_json(KEY) == {"block_m": 64}
    assert len(warnings_of(caplog)) == 1


def test_a_record_under_another_key_is_foreign(cache):
    cache.write_json(KEY, {"a": 1})
    [entry] = cache.entries()
    other = digest("another launch")
    entry.path.rename(entry.path.with_name(other + ".json"))
    assert cache.read_json(other) is None


def test_a_read_only_cache_leaves_damage_as_it_is(cache, root):
    path = cache.publish(TEXT)
    path.write_bytes(b"")
    reader = Cache(root, "ro")
    assert holds(reader.publish(TEXT))
    assert reader.verify() == [path]
    assert path.read_bytes() == b""


@posix
def test_a_link_a_pipe_and_a_directory_in_the_place_of_a_text(cache, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = cache.publish(TEXT)
    for put in (lambda: path.symlink_to(victim), lambda: os.mkfifo(path), path.mkdir):
        path.unlink()
        put()
        assert holds(cache.publish(TEXT))
        assert not path.is_symlink()
    assert victim.read_text() == "precious"


@posix
def test_a_link_to_the_right_text_is_no_entry(cache, tmp_path):
    path = cache.publish(TEXT)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert holds(cache.publish(TEXT))
    assert not path.is_symlink()


def test_records_take_no_pickle_and_no_nan(cache):
    with pytest.raises(ValueError, match="JSON"):
        cache.write_json(KEY, {"ms": float("nan")})
    with pytest.raises(TypeError, match="JSON"):
        cache.write_json(KEY, {"what": object()})
    assert cache.entries() == []


# --------------------------------------------------------------------------------------------------------- housekeeping


def test_prune_removes_the_least_recently_used(cache):
    paths = [cache.publish(f"{number:04d}") for number in range(4)]
    for age, path in zip([5 * DAY, 40 * DAY, 2 * DAY, 0.0], paths, strict=True):
        set_age(path, age)
    assert cache.prune(max_age=30 * DAY) == [paths[1]]
    assert cache.prune(max_bytes=8) == [paths[0]]
    assert cache.prune(max_bytes=0) == [paths[2]]
    assert [entry.path for entry in cache.entries()] == [paths[3]]


def test_a_use_makes_an_entry_young(cache):
    path = cache.publish(TEXT)
    set_age(path, 40 * DAY)
    cache.publish(TEXT)
    assert cache.prune() == []


def test_a_file_of_the_future_grows_old_too(cache):
    path = cache.publish(TEXT)
    set_age(path, -400 * DAY)
    assert cache.prune() == [path]


def test_leftovers_go_when_their_writer_must_be_dead(cache, root):
    shelf = cache.publish(TEXT).parent
    fresh, dead = shelf / ".tmp-fresh", shelf / ".tmp-dead"
    fresh.write_text("")
    dead.write_text("")
    set_age(dead, DAY)
    Cache(root).publish(TEXT + "#")  # a process's first writing prunes
    assert fresh.exists()
    assert not dead.exists()


def test_clear_removes_what_is_ours_and_nothing_else(cache, root):
    path = cache.publish(TEXT)
    cache.write_json(KEY, {})
    mine = [root / "notes.txt", path.parent / "notes.txt", root / "0123456789abcdef"]
    for each in mine:
        each.write_text("mine")
    (path.parent / ".tmp-left").write_text("")
    assert len(cache.clear()) == 3
    assert all(each.read_text() == "mine" for each in mine)
    assert cache.entries() == []
    assert holds(cache.publish(TEXT))


def test_housekeeping_where_there_is_nothing(root):
    cache = Cache(root)
    assert cache.entries() == cache.verify() == cache.prune() == cache.clear() == []
    assert Cache(None).entries() == []


# ------------------------------------------------------------------------------------------------- neighbours and death

fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the neighbours are forked processes"
)


def _in_child(function, *arguments) -> int:
    """The exit status of a forked child that calls `function`, 0 where it answers True."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function(*arguments) else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _stampede(root: Path, number: int, start) -> None:
    """Publish what all publish and what nobody else does, and read it all back."""
    cache = Cache(root)
    start.wait()
    for step in range(12):
        shared, own = f"shared = {step}\n" * 500, f"own = {number}, {step}\n"
        path = cache.publish(shared)
        assert path.is_relative_to(root)
        assert holds(cache.publish(own), own)
        cache.write_json(digest(f"{step}"), {"step": step})
        assert cache.read_json(digest(f"{step}")) == {"step": step}
        assert holds(path, shared)


@fork
def test_sixteen_processes_at_once(root):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(16)
    crowd = [context.Process(target=_stampede, args=(root, number, start)) for number in range(16)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0] * 16
    cache = Cache(root)
    assert cache.verify() == []
    assert len(cache.entries()) == 12 + 16 * 12 + 12
    assert not list(root.glob("*/*.bad")) + list(root.glob("*/.tmp-*"))


def _publish_for_ever(root: Path, numbers: random.Random) -> None:
    cache = Cache(root)
    while True:
        cache.publish(f"# {numbers.random()}\n" + "x" * numbers.choice([10, 10_000, 3_000_000]))
        cache.write_json(digest(f"{numbers.randrange(8)}"), {"step": numbers.random()})


@fork
def test_death_while_publishing_leaves_nothing_torn(root):
    numbers = random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(25):
        process = context.Process(target=_publish_for_ever, args=(root, numbers), daemon=True)
        process.start()
        time.sleep(numbers.uniform(0.005, 0.06))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        numbers.random()
    cache = Cache(root)
    assert len(cache.entries()) > 5
    assert cache.verify() == []
    for leftover in root.glob("*/.tmp-*"):
        set_age(leftover, DAY)
    cache.prune()
    assert not list(root.glob("*/.tmp-*"))


@fork
def test_a_forked_child_keeps_its_parents_files(root):
    cache = Cache(None)
    path = cache.publish(TEXT)
    assert _in_child(lambda: holds(cache.publish(TEXT)) and cache.publish(TEXT) != path) == 0
    assert holds(path)


def test_an_entry_that_goes_between_check_and_use(cache):
    path = cache.publish(TEXT)
    path.unlink()
    assert holds(cache.publish(TEXT))


def test_a_record_is_one_line_of_json_below_its_digest(cache):
    cache.write_json(KEY, {"b": 1, "a": [True, None]})
    [entry] = cache.entries()
    stated, body = entry.path.read_text().splitlines()
    assert stated == digest(KEY + body)
    assert json.loads(body) == {"a": [True, None], "b": 1}
