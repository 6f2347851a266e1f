"""Downloads from a server of the test's own: by hash, into the cache, or not at all."""

import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import published_files
import pytest

from uotcell import datasets
from uotcell.datasets import _sciplex
from uotcell.datasets._fetch import cache_folder, fetch
from uotcell.datasets._registry import entries


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; of ``cut.bin`` less than announced, and for ``moved.bin`` the way to another file."""

    def do_GET(self):
        self.server.n_requests += 1
        if self.path.endswith("moved.bin"):
            self.send_response(302)
            self.send_header("Location", "/other.bin")
            return self.end_headers()
        if not self.path.endswith("cut.bin"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"only this")
        return self.close_connection

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("UOTCELL_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served")))
    httpd.n_requests = 0
    httpd.folder = tmp_path / "served"
    httpd.address = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def cached() -> list[str]:
    return sorted(path.name for path in cache_folder().glob("*"))


def serve(server, content: bytes = b"some cells", name: str = "cells.bin", **changes):
    (server.folder / name).write_bytes(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    values = {"file": name, "url": f"{server.address}/{name}", "known_hash": digest} | changes
    return replace(entries()["sciplex2"], **values)


def test_downloads_once(server):
    entry = serve(server)
    path = fetch(entry, None, progress=False)
    assert path == cache_folder() / "cells.bin"
    assert path.read_bytes() == b"some cells"
    assert fetch(entry, None, progress=False) == path
    assert server.n_requests == 1
    assert cached() == ["cells.bin"]


def test_a_file_put_into_the_cache_is_taken_if_it_is_the_right_one(server):
    entry = serve(server)
    cache_folder().mkdir()
    (cache_folder() / "cells.bin").write_bytes(b"some cells")
    fetch(entry, None, progress=False)
    assert server.n_requests == 0
    (cache_folder() / "cells.bin").write_bytes(b"other cells")
    assert fetch(entry, None, progress=False).read_bytes() == b"some cells"
    assert server.n_requests == 1


def test_md5_is_a_hash_too(server):
    entry = serve(server, known_hash="md5:" + hashlib.md5(b"some cells").hexdigest())
    assert fetch(entry, None, progress=False).read_bytes() == b"some cells"


def test_a_progress_bar_can_be_shown(server, capsys):
    fetch(serve(server), None, progress=True)
    assert "100%" in capsys.readouterr().err


def test_wrong_hash_leaves_nothing(server):
    entry = serve(server, known_hash="sha256:" + "0" * 64)
    with pytest.raises(ValueError, match=r"to have the hash sha256:0+, found another.*nothing was kept.*CC-BY-4\.0"):
        fetch(entry, None, progress=False)
    assert cached() == []


def test_a_redirect_to_another_content_leaves_nothing(server):
    entry = serve(server, url=f"{server.address}/moved.bin")
    (server.folder / "other.bin").write_bytes(b"other cells")
    with pytest.raises(ValueError, match=r"found another.*nothing was kept"):
        fetch(entry, None, progress=False)
    assert cached() == []
    assert server.n_requests == 2
    (server.folder / "other.bin").write_bytes(b"some cells")
    assert fetch(entry, None, progress=False).read_bytes() == b"some cells"


def test_a_given_hash_replaces_the_one_of_the_registry(server):
    with pytest.raises(ValueError, match="found another"):
        fetch(serve(server), None, known_hash="md5:" + "0" * 32, progress=False)
    nameless = serve(server, known_hash=None)
    digest = "sha256:" + hashlib.sha256(b"some cells").hexdigest()
    assert fetch(nameless, None, known_hash=digest, progress=False).is_file()


@pytest.mark.parametrize("known_hash", ["", "0" * 64, "sha256:" + "0" * 63, "md5:" + "G" * 32, "sha1:" + "0" * 40])
def test_malformed_hash(server, known_hash):
    with pytest.raises(ValueError, match="Expected `known_hash` to be 'sha256:' and 64"):
        fetch(serve(server), None, known_hash=known_hash, progress=False)
    assert server.n_requests == 0


def help_for(entry) -> str:
    return rf"{entry.file} \({entry.size}, license {entry.license}\).*{entry.loader}\(path\).*{cache_folder()}"


def test_missing_file_on_the_server(server):
    entry = serve(server, url=f"{server.address}/gone.bin")
    with pytest.raises(ConnectionError, match=f"404.*{help_for(entry)}"):
        fetch(entry, None, progress=False)
    assert cached() == []


def test_interrupted_download(server):
    entry = serve(server, name="cut.bin")
    with pytest.raises(ConnectionError, match=r"cut\.bin .145 MB, license CC-BY-4\.0.*path"):
        fetch(entry, None, progress=False)
    assert cached() == []


def test_no_server(server):
    entry = serve(server, url="http://127.0.0.1:9/cells.bin")
    with pytest.raises(ConnectionError, match=f"Expected to download 'sciplex2'.*{help_for(entry)}"):
        fetch(entry, None, progress=False)


def test_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    monkeypatch.setenv("UOTCELL_DATA_DIR", str(tmp_path / "taken"))
    with pytest.raises(OSError, match=r"Expected to write to .*taken.*UOTCELL_DATA_DIR"):
        fetch(serve(server), None, progress=False)


def test_cache_is_the_users_by_default(monkeypatch):
    monkeypatch.delenv("UOTCELL_DATA_DIR", raising=False)
    assert "uotcell" in str(cache_folder())
    monkeypatch.setenv("UOTCELL_DATA_DIR", "~/cells")
    assert cache_folder() == Path.home() / "cells"


@pytest.mark.parametrize("loader", [datasets.reprogramming_serum, datasets.embryoid_body])
def test_without_a_known_hash_nothing_is_downloaded(loader):
    entry = entries()[loader.__name__]
    message = rf"Expected `path` or `known_hash`, found neither.*{entry.file}.*{entry.url}.*{entry.loader}\(path\)"
    with pytest.raises(ValueError, match=message):
        loader()


def test_without_an_address_a_path_is_needed():
    with pytest.raises(ValueError, match=r"Expected `path`, found None.*8h\.h5ad.*10\.3929/ethz-b-000609681"):
        datasets.read_cellot_4i()


@pytest.mark.parametrize("loader", [datasets.pancreas, datasets.sciplex2])
def test_own_file_that_is_not_there(loader, tmp_path):
    (tmp_path / "other.h5ad").touch()
    with pytest.raises(FileNotFoundError, match="Expected `path` to be a file, found none"):
        loader(tmp_path / "cells.h5ad")


def test_a_loader_downloads_and_converts(server, monkeypatch, tmp_path):
    file = published_files.sciplex2(tmp_path)
    served = serve(server, file.read_bytes(), file.name)
    monkeypatch.setattr(_sciplex, "entries", lambda: {"sciplex2": served})
    adata = datasets.sciplex2(progress=False)
    own = datasets.sciplex2(file)
    assert server.n_requests == 1
    assert adata.obs.equals(own.obs)
    assert (adata.X != own.X).nnz == 0
