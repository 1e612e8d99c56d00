"""fetch from a server on this machine: checksums, nothing half-written, mirrors, strange archives."""

import functools
import hashlib
import http.server
import io
import socket
import sys
import tarfile
import threading

import pytest

from fcnet import errors
from fcnet.cli import main
from fcnet.data import catalogue, cifar, fetch, fetching
from fcnet.data.fetching import _reason

pytest.importorskip("pooch")

SIZE = 2 * 3073
BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def server(tmp_path):
    """Return a folder and the URL under which it is served; `server.asked` lists the requests."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.folder, server.asked = folder, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FCNET_DATA", str(tmp_path / "root"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "root"


@pytest.fixture
def mnist(server, monkeypatch):
    """Four small files on the server, and their checksums in the catalogue."""
    checksums = catalogue.SOURCES["mnist"].checksums
    for file in checksums:
        data = file.encode() * 1000
        (server.folder / file).write_bytes(data)
        monkeypatch.setitem(checksums, file, hashlib.sha256(data).hexdigest())
    return checksums


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("slash", ["", "/"])
def test_fetch_puts_files_where_load_looks(server, mnist, root, slash, capsys):
    folder = fetch("mnist", mirror=server.url + slash)
    assert folder == root / "mnist"
    assert sorted(path.name for path in catalogue.find_files("mnist").values()) == sorted(mnist)
    assert everything(folder) == sorted(mnist)
    for file in mnist:
        assert (folder / file).read_bytes() == file.encode() * 1000
    assert f"mnist: now in {folder}" in capsys.readouterr().err


def test_what_is_there_is_not_fetched_again(server, mnist, root, capsys):
    fetch("mnist", mirror=server.url, progress=False)
    assert capsys.readouterr().err == ""
    assert len(server.asked) == 4
    fetch("mnist", mirror=server.url)
    assert len(server.asked) == 4
    assert "already in" in capsys.readouterr().err
    damaged = root / "mnist" / next(iter(mnist))
    damaged.write_bytes(b"damaged")
    fetch("mnist", mirror=server.url, progress=False)
    assert server.asked[4:] == ["/" + damaged.name]
    assert damaged.read_bytes() == damaged.name.encode() * 1000


def test_data_dir_comes_before_the_environment(server, mnist, tmp_path, root):
    assert fetch("mnist", data_dir=tmp_path / "other", mirror=server.url, progress=False) == tmp_path / "other/mnist"
    assert not root.exists()


def test_a_wrong_checksum_leaves_nothing(server, mnist, root):
    first = next(iter(mnist))
    (server.folder / first).write_bytes(b"something else")
    with pytest.raises(ValueError) as caught:
        fetch("mnist", mirror=server.url, progress=False)
    message = str(caught.value)
    for word in (first, mnist[first], hashlib.sha256(b"something else").hexdigest(), "mirror"):
        assert word in message
    assert "\n" not in message
    assert everything(root) == []


def test_a_wrong_checksum_keeps_the_old_file(server, mnist, root):
    first = next(iter(mnist))
    (root / "mnist").mkdir(parents=True)
    (root / "mnist" / first).write_bytes(b"old")
    (server.folder / first).write_bytes(b"something else")
    with pytest.raises(ValueError, match="nothing was kept"):
        fetch("mnist", mirror=server.url, progress=False)
    assert everything(root) == [f"mnist/{first}"]


def test_a_missing_file_on_the_server(server, mnist, root):
    last = list(mnist)[-1]
    (server.folder / last).unlink()
    with pytest.raises(ConnectionError) as caught:
        fetch("mnist", mirror=server.url, progress=False)
    message = str(caught.value)
    for word in (f"{server.url}/{last}", "404", "mirror", str(root / "mnist")):
        assert word in message
    assert "\n" not in message
    assert everything(root) == sorted(f"mnist/{file}" for file in list(mnist)[:-1])  # the whole ones stay


def test_no_server(mnist, root):
    with socket.socket() as listener:  # a port that nobody listens on
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=rf"{url}/.*cannot be fetched \(connection refused\).*mirror="):
        fetch("mnist", mirror=url, progress=False)
    assert not root.exists()


def test_folders_that_were_there_stay_after_a_failure(mnist, root):
    root.mkdir()
    with pytest.raises(ConnectionError):
        fetch("mnist", mirror="nonsense", progress=False)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HTTPSConnectionPool(host='a', port=443): Max retries exceeded with url: /b (Caused by NameResolutionError("
         "\"<urllib3...>: Failed to resolve 'a' ([Errno -2] Name or service not known)\"))",
         "name or service not known"),
        ("HTTPSConnectionPool(host='a', port=443): Read timed out. (read timeout=60)", "timed out"),
        ("404 Client Error: Not Found", "404 Client Error: Not Found"),
    ],
)  # fmt: skip
def test_a_plain_reason(text, reason):
    assert _reason(OSError(text)) == reason


def test_no_bar_without_a_terminal(server, mnist, capsys):
    fetch("mnist", mirror=server.url)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mirror_that_is_no_url(mnist):
    with pytest.raises(ConnectionError, match=r"nonsense/train-images.*cannot be fetched"):
        fetch("mnist", mirror="nonsense", progress=False)


def test_a_place_that_cannot_be_written(server, mnist, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        fetch("mnist", data_dir=tmp_path / "file", mirror=server.url, progress=False)


def archive(members, top="cifar-10-batches-bin"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as out:
        for name, data in members:
            info = tarfile.TarInfo(f"{top}/{name}")
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
                out.addfile(info)
            else:
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def serve_cifar(server, monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", 2)

    def serve(data):
        (server.folder / "cifar-10-binary.tar.gz").write_bytes(data)
        check = f"md5:{hashlib.md5(data).hexdigest()}"
        monkeypatch.setitem(catalogue.SOURCES["cifar10"].checksums, "cifar-10-binary.tar.gz", check)
        return server.url

    return serve


GOOD = [(name, bytes([i]) * SIZE) for i, name in enumerate(BATCHES)] + [("batches.meta.txt", b"names")]


def test_cifar10_unpacks_what_it_knows_and_nothing_else(serve_cifar, server, root, tmp_path, capsys):
    others = [
        ("../../escaped", b"x"),
        ("readme.html", b"x"),
        ("sub/data_batch_1.bin", bytes(SIZE)),
        ("link", None),
    ]
    url = serve_cifar(archive(others + GOOD))
    folder = fetch("cifar10", mirror=url)
    assert folder == root / "cifar-10-batches-bin"
    assert everything(root) == sorted(f"cifar-10-batches-bin/{name}" for name, _ in GOOD)
    assert (folder / "data_batch_3.bin").read_bytes() == b"\2" * SIZE
    assert not list(tmp_path.rglob("escaped"))
    assert len(catalogue.find_files("cifar10")) == 6
    fetch("cifar10", mirror=url)
    assert len(server.asked) == 1
    assert "already in" in capsys.readouterr().err
    (folder / "test_batch.bin").write_bytes(b"short")
    fetch("cifar10", mirror=url, progress=False)
    assert len(server.asked) == 2
    assert (folder / "test_batch.bin").read_bytes() == b"\5" * SIZE


@pytest.mark.parametrize(
    "bad",
    [
        archive(GOOD[1:]),
        archive(GOOD, top="elsewhere"),
        archive([("data_batch_1.bin", b"short"), *GOOD[1:]]),
        archive([("data_batch_1.bin", None), *GOOD[1:]]),
    ],
    ids=["missing", "other-folder", "short", "link"],
)
def test_cifar10_archives_that_lack_a_batch(serve_cifar, root, bad):
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz: expected .*data_batch_1\.bin"):
        fetch("cifar10", mirror=serve_cifar(bad), progress=False)
    assert everything(root) == []


@pytest.mark.parametrize("keep", [0, 10, 200, -20])
def test_cifar10_damaged_archives(serve_cifar, root, keep):
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz: expected"):
        fetch("cifar10", mirror=serve_cifar(archive(GOOD)[:keep]), progress=False)
    assert everything(root) == []


def test_fetching_has_a_bound(server, mnist, root, monkeypatch):
    first = next(iter(mnist))
    monkeypatch.setattr(fetching, "_MORE", 0)
    monkeypatch.setitem(catalogue.SOURCES["mnist"].sizes, first, 10_000)
    with pytest.raises(ValueError, match="expected at most 10000 bytes, got more"):
        fetch("mnist", mirror=server.url, progress=False)
    assert not root.exists()


def test_fetching_has_an_end(server, mnist, root, monkeypatch):
    monkeypatch.setattr(fetching, "_TIMEOUT", -1e9)
    monkeypatch.setattr("pooch.HTTPDownloader", _without_timeout(__import__("pooch").HTTPDownloader))
    with pytest.raises(ConnectionError, match="slower than 10 kB a second"):
        fetch("mnist", mirror=server.url, progress=False)
    assert not root.exists()


def _without_timeout(downloader):
    return lambda timeout, **how: downloader(**how)


def test_nothing_is_unpacked_on_the_way(server, mnist, root):
    """A server that offers gzip is asked for the bytes as they are."""
    asked = []
    handler = server.RequestHandlerClass.func
    do_get = handler.do_GET

    def get(self):
        asked.append(self.headers["Accept-Encoding"])
        do_get(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handler, "do_GET", get)
        fetch("mnist", mirror=server.url, progress=False)
    assert set(asked) == {"identity"}


@pytest.mark.parametrize("place", ["127.0.0.1:9", "no-such-host.invalid"])
def test_passwords_are_not_told(place, mnist, root, capsys):
    assert main(["fetch", "mnist", "--mirror", f"http://me:hush@{place}/data"]) == 2
    error = capsys.readouterr().err
    assert place.split(":")[0] in error
    assert "hush" not in error
    assert "me:" not in error


def test_what_killed_fetches_left_is_removed(server, mnist, root):
    left = root / "mnist" / ".fetch-abc"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"half")
    fetch("mnist", mirror=server.url, progress=False)
    assert sorted(path.name for path in (root / "mnist").iterdir()) == sorted(mnist)


@pytest.mark.parametrize("name", ["digits", "spirals"])
def test_nothing_to_fetch(name, capsys, root):
    assert fetch(name) == root
    assert capsys.readouterr().err == f"{name} is made here; nothing to fetch\n"
    assert not root.exists()


def test_unknown_name():
    with pytest.raises(ValueError, match=r"name: expected one of digits, .*did you mean 'mnist'"):
        fetch("mnis")


def test_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(errors.MissingExtra, match=r"fcnet fetch needs pooch.*pip install .*\[data\]"):
        fetch("mnist")


def test_the_official_places():
    for source in catalogue.SOURCES.values():
        assert source.url.startswith("http")
        assert source.url.endswith("/")
        assert source.folder in source.folders
        for check in source.checksums.values():
            algorithm, _, digest = check.rpartition(":")
            assert len(digest) == {"": 64, "md5": 32}[algorithm]
