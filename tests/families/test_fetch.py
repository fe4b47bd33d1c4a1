"""Weights from the network, from servers on this machine: whole, verified, once, and explained when they do not come."""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import families
from families.core.fetch import fetch
from families.core.weights_folder import RECORD, find_weights
from families.spec import Layout, Official, Teacher, WeightsError

from ..conftest import ROOT

CONTENT = os.urandom(3_000_000)
OTHER = os.urandom(2_500_000)


class Server(ThreadingHTTPServer):
    """One file, served as told: with or without Range, cut off or stalled after some bytes, with another status, from
    elsewhere; it keeps a log."""

    daemon_threads = True

    def __init__(self, certificate=None):
        self.serve(CONTENT, "one")
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if certificate is not None:
            self.scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def serve(self, content, etag):
        """This content under this tag, as a server does that nothing is wrong with."""
        self.content, self.etag, self.headers, self.log = content, f'"{etag}"', {}, []
        self.ranges, self.cut, self.status, self.files, self.silent = True, None, 200, None, False
        self.stalled, self.moved, self.sent, self.tokens = None, None, 0, []

    @property
    def address(self):
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server, start = self.server, 0
        asked = self.headers.get("Range")
        server.log.append((self.command, self.path, asked))
        server.tokens.append(self.headers.get("Authorization"))
        if server.silent:
            return self.connection.shutdown(socket.SHUT_RDWR)
        if server.moved and body:
            self.send_response(302)
            self.send_header("Location", server.moved)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        there = server.files is None or self.path.endswith(server.files)
        if server.status != 200 or not there:
            self.send_response(404 if not there else server.status)
            for name, value in (server.headers if there else {"X-Error-Code": "EntryNotFound"}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        condition = self.headers.get("If-Range")
        if asked and server.ranges and condition in (None, server.etag, server.headers.get("Last-Modified")):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if asked and start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(server.content) - start))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cut, server.cut = server.cut, None
            rest = server.content[start:][:cut]
            self.wfile.write(rest)
            server.sent += len(rest)
            if cut is not None:
                self.wfile.flush()
                if server.stalled:
                    server.stalled.wait(30)
                self.connection.shutdown(socket.SHUT_RDWR)
        return None


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def official(server, sha256=None):
    file = Official(f"{server.address}/files/weights.pth", Layout(("model",)), sha256)
    return Teacher("base", "vit_base_patch16_224", 768, 12, 12, 16, "MIT", official=file)


def explained(teacher, folder, words, name="ours-base"):
    """The one line that a failed fetch gives."""
    with pytest.raises(WeightsError, match=words) as caught:
        fetch(teacher, name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gets(server):
    return [asked for command, _, asked in server.log if command == "GET"]


# ---- the authors' servers


def test_a_file_is_fetched_once_and_its_origin_recorded(server, tmp_path):
    teacher, seen = official(server, hashlib.sha256(CONTENT).hexdigest()), []
    path = fetch(teacher, "ours-base", tmp_path / "new" / "folder", lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "new" / "folder" / "ours-base" / "weights.pth" == find_weights(path.parent.parent, "ours", "base")
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen) and len(seen) > 1
    record = json.loads((path.parent / RECORD).read_text())
    assert record.pop("date").endswith("+00:00")
    assert record == {
        "source": teacher.official.url,
        "revision": None,
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
    }
    assert sorted(file.name for file in path.parent.iterdir()) == [RECORD, "weights.pth"]
    assert fetch(teacher, "ours-base", tmp_path / "new" / "folder") == path
    assert gets(server) == [None]


@pytest.mark.parametrize("validator", ["etag", "date"])
def test_what_was_cut_off_goes_on_where_it_was(server, tmp_path, validator):
    if validator == "date":
        server.etag, server.headers = None, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.cut = 2_000_000
    explained(official(server), tmp_path, r"connection lost.*the same command goes on")
    part = tmp_path / "ours-base" / "weights.pth.part"
    have = part.stat().st_size
    assert 0 < have <= 2_000_000
    assert find_weights(tmp_path, "ours", "base") is None
    seen = []
    path = fetch(official(server), "ours-base", tmp_path, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert gets(server) == [None, f"bytes={have}-"]
    assert seen[0][0] > have and seen[-1] == (len(CONTENT), len(CONTENT))
    assert not list(path.parent.glob("*.part"))


@pytest.mark.parametrize("how", ["another etag", "no Range", "weak etag", "shorter now"])
def test_what_cannot_go_on_starts_over(server, tmp_path, how):
    if how == "weak etag":
        server.etag = 'W/"one"'
    server.cut = 2_600_000 if how == "shorter now" else 2_000_000
    explained(official(server), tmp_path, "connection lost")
    part = tmp_path / "ours-base" / "weights.pth.part"
    assert part.stat().st_size > 0
    if how == "another etag":
        server.content, server.etag = OTHER, '"two"'
    elif how == "no Range":
        server.ranges = False
    elif how == "shorter now":
        server.content = OTHER[:100]  # under the same tag: the rest of it cannot be had
    path = fetch(official(server), "ours-base", tmp_path)
    assert path.read_bytes() == server.content
    if how == "weak etag":
        assert gets(server) == [None, None]


def test_another_file_than_the_pinned_one_is_refused(server, tmp_path):
    message = explained(official(server, "0" * 64), tmp_path, "sha256 is")
    assert hashlib.sha256(CONTENT).hexdigest() in message and "0" * 64 in message and server.address in message
    assert not list((tmp_path / "ours-base").iterdir())


@pytest.mark.parametrize(("content", "words"), [(b"<!DOCTYPE html><p>Sign in</p>", "a web page"), (b"", "an empty file")])
def test_no_checkpoint_is_refused(server, tmp_path, content, words):
    server.content = content
    message = explained(official(server), tmp_path, words)
    assert server.address in message and str(tmp_path / "ours-base" / "weights.pth") in message
    assert not list((tmp_path / "ours-base").iterdir())


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_http_error_says_where_a_file_by_hand_goes(server, tmp_path, status):
    server.status = status
    message = explained(official(server), tmp_path, f"HTTP {status}")
    assert official(server).official.url in message
    assert message.endswith(str(tmp_path / "ours-base" / "weights.pth"))
    (tmp_path / "ours-base" / "weights.pth").write_bytes(b"by hand")
    assert fetch(official(server), "ours-base", tmp_path).read_bytes() == b"by hand"


def test_no_network_is_explained(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for address in (closed, "http://weights.invalid"):
        file = Official(f"{address}/weights.pth", Layout(("model",)))
        message = explained(replace(official(server), official=file), tmp_path, "no network")
        assert "`bench fetch --family ours --sizes base --weights DIR`" in message
        assert address in message and str(tmp_path / "ours-base") in message


def test_a_folder_that_cannot_be_written_is_explained(server, tmp_path):
    (tmp_path / "file").write_text("")
    explained(official(server), tmp_path / "file" / "below", r"Not a directory|File exists")
    assert not server.log


def test_a_damaged_file_or_one_from_elsewhere_is_fetched_again(server, tmp_path):
    path = fetch(official(server), "ours-base", tmp_path)
    path.write_bytes(b"damaged")
    assert fetch(official(server), "ours-base", tmp_path).read_bytes() == CONTENT
    moved = replace(official(server).official, url=f"{server.address}/moved/new.pth")
    path = fetch(replace(official(server), official=moved), "ours-base", tmp_path)
    assert path.name == "new.pth"
    assert find_weights(tmp_path, "ours", "base") == path
    assert len(gets(server)) == 3


@pytest.mark.parametrize("how", ["damaged", "deleted"])
def test_an_unpinned_file_stays_the_one_that_was_first_fetched(server, tmp_path, how):
    """Nobody publishes a digest of it: the first one holds, until its record is deleted."""
    path, teacher = fetch(official(server), "ours-base", tmp_path), official(server)
    path.write_bytes(b"damaged") if how == "damaged" else path.unlink()
    record = path.with_name(RECORD).read_bytes()
    server.serve(OTHER, "two")
    for _ in range(2):
        message = explained(teacher, tmp_path, "sha256 is")
        assert hashlib.sha256(CONTENT).hexdigest() in message and hashlib.sha256(OTHER).hexdigest() in message
        assert f"to accept the new file, delete {path.with_name(RECORD)}" in message and teacher.official.url in message
        assert path.with_name(RECORD).read_bytes() == record and not list(path.parent.glob("*.part"))
    server.serve(CONTENT, "three")
    assert fetch(teacher, "ours-base", tmp_path).read_bytes() == CONTENT
    path.unlink()
    server.serve(OTHER, "four")
    pinned = official(server, hashlib.sha256(OTHER).hexdigest())
    assert fetch(pinned, "ours-base", tmp_path).read_bytes() == OTHER  # the family's word goes before
    path.unlink()
    server.serve(CONTENT, "five")
    explained(teacher, tmp_path, "to accept the new file, delete")
    path.with_name(RECORD).unlink()
    assert fetch(teacher, "ours-base", tmp_path).read_bytes() == CONTENT


DAMAGED_RECORDS = [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"source": [], "sha256": {}}']


@pytest.mark.parametrize("content", [*DAMAGED_RECORDS, os.mkfifo], ids=range(len(DAMAGED_RECORDS) + 1))
def test_a_damaged_record_is_none(server, tmp_path, content, at_once):
    path = fetch(official(server), "ours-base", tmp_path)
    record = path.with_name(RECORD)
    record.unlink()
    content(record) if callable(content) else record.write_bytes(content)
    assert fetch(official(server), "ours-base", tmp_path).read_bytes() == CONTENT
    assert json.loads(record.read_text())["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert len(gets(server)) == 2 and sorted(file.name for file in path.parent.iterdir()) == [RECORD, "weights.pth"]


def test_a_record_is_written_whole_or_not_at_all(server, tmp_path, monkeypatch):
    path = fetch(official(server), "ours-base", tmp_path)
    record = path.with_name(RECORD).read_bytes()
    path.unlink()
    replace_file = os.replace

    def full(source, target):
        if Path(target).name == RECORD:
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    explained(official(server), tmp_path, "No space left on device; make room")
    assert path.with_name(RECORD).read_bytes() == record and not path.exists()


@pytest.mark.parametrize("tag", [b"\xff\x00", b"a\nb: c", b""])
def test_a_damaged_tag_makes_a_download_start_over(server, tmp_path, tag):
    server.cut = 2_000_000
    explained(official(server), tmp_path, "connection lost")
    (tmp_path / "ours-base" / "weights.pth.etag.part").write_bytes(tag)
    assert fetch(official(server), "ours-base", tmp_path).read_bytes() == CONTENT
    assert gets(server) == [None, None]


def test_being_sent_on_to_no_address_is_explained(server, tmp_path):
    server.moved = "http://[1"
    explained(official(server), tmp_path, "no network")


# ---- from https nobody is sent on to http


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of this machine's address, which its holder signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")]
    subprocess.run(["openssl", "req", "-x509", *options, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture
def encrypted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    server = Server(certificate)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def also_encrypted(encrypted, certificate):
    server = Server(certificate)
    yield server
    server.shutdown()
    server.server_close()


def test_nobody_is_followed_from_https_to_http(server, encrypted, also_encrypted, tmp_path):
    encrypted.moved = f"{also_encrypted.address}/elsewhere.pth"
    assert fetch(official(encrypted), "ours-base", tmp_path / "encrypted").read_bytes() == CONTENT
    for first, second in [(server, None), (also_encrypted, server)]:  # at once, and after a redirect that is one to follow
        encrypted.moved = f"{first.address}/elsewhere.pth?signature=secret"
        also_encrypted.moved = second and f"{second.address}/elsewhere.pth?signature=secret"
        message = explained(official(encrypted), tmp_path, f"sends on from https to {server.address}/elsewhere.pth, which is not")
        assert official(encrypted).official.url in message and "secret" not in message
        assert not server.log and not list(tmp_path.glob("ours-base/*"))
    server.moved = f"{encrypted.address}/elsewhere.pth"
    encrypted.moved = None
    assert fetch(official(server), "ours-base", tmp_path).read_bytes() == CONTENT  # from http there is nothing to lose


@pytest.mark.long
def test_the_hub_sends_nobody_from_https_to_http(server, encrypted, tmp_path):
    asker = Asker(tmp_path / "hf", encrypted.address)
    words = f"hub:{REPO}: sends on from https to {server.address}/blob, which is not encrypted"
    digest = hashlib.sha256(CONTENT).hexdigest()
    try:
        encrypted.headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(CONTENT))}
        encrypted.files, encrypted.moved = "model.safetensors", f"{server.address}/blob?signature=secret"
        by_the_download, _ = asker(tmp_path)
        assert [command for command, _, _ in encrypted.log] == ["HEAD", "GET"]
        encrypted.status, encrypted.headers["Location"] = 302, encrypted.moved
        by_the_metadata, _ = asker(tmp_path)
        assert [command for command, _, _ in encrypted.log] == ["HEAD", "GET", "HEAD"]
    finally:
        asker.close()
    for message in (by_the_download, by_the_metadata):
        assert message.startswith(words) and "secret" not in message
    assert not server.log and not list((tmp_path / "clip-base").iterdir())


def test_a_file_of_the_users_is_left_as_it_is(server, tmp_path):
    path = tmp_path / "ours-base.pth"
    path.write_bytes(b"mine")
    assert fetch(official(server), "ours-base", tmp_path) == path
    assert not server.log


# ---- the Hugging Face hub: its client in a process of its own, since it reads its settings at import


TOKEN = "hf_secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "timm/vit_base_patch16_clip_224.openai"
ASK = """
import json, sys
from dataclasses import replace
from pathlib import Path
from huggingface_hub import constants
import families
from families.core.fetch import fetch
from families.spec import UserError
teacher = families.spec("clip").teacher("base")
for line in sys.stdin:
    folder, revision, constants.HF_HUB_OFFLINE = json.loads(line)
    seen = []
    try:
        got = str(fetch(replace(teacher, revision=revision), "clip-base", Path(folder), lambda *a: seen.append(a)))
    except UserError as error:
        got = str(error)
    print(json.dumps([got, seen]), flush=True)
"""


class Asker:
    """A process that fetches CLIP base from a hub of ours."""

    def __init__(self, home, endpoint):
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ASK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**kept, **quiet, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN},
        )

    def say(self, folder, revision=None, offline=False):
        self.process.stdin.write(json.dumps([str(folder), revision, offline]) + "\n")
        self.process.stdin.flush()

    def __call__(self, folder, revision=None, offline=False):
        """(the path or the error's one line, what the progress was told)."""
        self.say(folder, revision, offline)
        got, seen = json.loads(self.process.stdout.readline())
        assert "\n" not in got
        return got, seen

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hub_and_asker(tmp_path_factory):
    server = Server()
    asker = Asker(tmp_path_factory.mktemp("hf"), server.address)
    yield server, asker
    asker.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(hub_and_asker):
    server, _ = hub_and_asker
    server.serve(CONTENT, hashlib.sha256(CONTENT).hexdigest())
    server.headers, server.files = {"X-Repo-Commit": COMMIT}, "model.safetensors"
    return server


@pytest.fixture
def ask(hub_and_asker):
    return hub_and_asker[1]


@pytest.fixture
def storage(hub, server):
    """The host that the hub sends to for the bytes of its large files, under validators of its own."""
    hub.status = 302
    hub.headers = {
        "X-Repo-Commit": COMMIT,
        "X-Linked-Etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"',
        "X-Linked-Size": str(len(CONTENT)),
        "Location": f"{server.address}/blob?signature=signed",
        "ETag": '"of the answer"',
    }
    return server


def asked_of(hub):
    return [(command, path, asked) for command, path, asked in hub.log if "/resolve/" in path]


@pytest.mark.long
def test_the_hubs_file_is_fetched_once_with_its_revision(hub, ask, storage, tmp_path):
    path = tmp_path / "clip-base" / "model.safetensors"
    got, seen = ask(tmp_path)
    assert got == str(path)
    assert path.read_bytes() == CONTENT
    assert seen == sorted(seen) and len(seen) > 1 and seen[-1] == [len(CONTENT), len(CONTENT)]
    assert {total for _, total in seen} == {len(CONTENT)}
    assert ask(tmp_path) == (str(path), [])
    assert [(command, asked) for command, asked, _ in hub.log] == [("HEAD", f"/{REPO}/resolve/main/model.safetensors")]
    assert storage.log == [("GET", "/blob?signature=signed", None)]
    record = json.loads((path.parent / RECORD).read_text())
    assert (record["source"], record["revision"], record["bytes"]) == (f"hub:{REPO}", COMMIT, len(CONTENT))
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(file.name for file in path.parent.iterdir()) == [RECORD, "model.safetensors"]
    assert find_weights(tmp_path, "clip", "base") == path


@pytest.mark.long
def test_a_killed_process_is_gone_on_from_by_another(hub, ask, storage, tmp_path):
    storage.cut, storage.stalled = 2_500_000, threading.Event()
    killed = Asker(tmp_path / "hf", hub.address)
    part = tmp_path / "clip-base" / "model.safetensors.part"
    try:
        killed.say(tmp_path)
        end = time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 2_000_000:
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        killed.process.kill()
        killed.close()
        storage.stalled.set()
    have = part.stat().st_size
    storage.etag = '"of another edge"'  # says nothing about the hub's file
    path, seen = ask(tmp_path)
    assert Path(path).read_bytes() == CONTENT
    assert gets(storage) == [None, f"bytes={have}-"]
    assert storage.sent < 1.5 * len(CONTENT)
    assert seen[0][0] > have and seen == sorted(seen) and seen[-1] == [len(CONTENT), len(CONTENT)]
    assert not list(part.parent.glob("*.part"))


@pytest.mark.parametrize("how", ["another commit", "another etag", "no Range", "shorter now"])
def test_what_cannot_go_on_at_the_hub_starts_over(hub, ask, storage, tmp_path, how):
    hub.headers["X-Linked-Etag"] = f'"{"a" * 40}"'  # of git, not a sha256
    storage.cut = 2_000_000
    message, _ = ask(tmp_path)
    assert message.startswith(f"hub:{REPO}: connection lost ") and message.endswith("; the same command goes on from there")
    have = (tmp_path / "clip-base" / "model.safetensors.part").stat().st_size
    assert have > 0
    assert find_weights(tmp_path, "clip", "base") is None
    if how == "no Range":
        storage.ranges = False
    else:
        storage.content = OTHER[:100] if how == "shorter now" else OTHER
        hub.headers["X-Linked-Size"] = str(len(storage.content))
    if how == "another commit":
        hub.headers["X-Repo-Commit"] = "f" * 40
    elif how == "another etag":
        hub.headers["X-Linked-Etag"] = f'"{"b" * 40}"'
    path = Path(ask(tmp_path)[0])
    assert path.read_bytes() == storage.content
    again = [None] if how.startswith("another") else [f"bytes={have}-"]
    assert gets(storage) == [None, *again, *([None] if how == "shorter now" else [])]
    assert json.loads((path.parent / RECORD).read_text())["revision"] == hub.headers["X-Repo-Commit"]
    assert not list(path.parent.glob("*.part"))


def test_the_token_goes_to_the_hub_alone(hub, ask, storage, tmp_path):
    ask(tmp_path / "sent elsewhere by the metadata")
    assert hub.tokens == [f"Bearer {TOKEN}"] and storage.tokens == [None]
    hub.serve(CONTENT, hashlib.sha256(CONTENT).hexdigest())
    hub.headers, hub.moved = {"X-Repo-Commit": COMMIT}, f"{storage.address}/blob"
    path, _ = ask(tmp_path / "sent elsewhere by the download alone")
    assert Path(path).read_bytes() == CONTENT
    assert hub.tokens == [f"Bearer {TOKEN}"] * 2 and storage.tokens == [None] * 2
    hub.moved = None
    ask(tmp_path / "at the hub itself")
    assert hub.tokens == [f"Bearer {TOKEN}"] * 4 and len(storage.tokens) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "HTTP 403 Forbidden; a file downloaded by hand goes to "), (503, "HTTP 503"), (None, "no network (")],
)
def test_a_download_that_fails_after_the_hub_answered_is_explained(hub, ask, storage, tmp_path, status, words):
    storage.status, storage.silent = status or 200, status is None
    message, _ = ask(tmp_path)
    assert message.startswith(f"hub:{REPO}: {words}")
    assert str(tmp_path / "clip-base") in message
    assert "signed" not in message and storage.address not in message
    assert find_weights(tmp_path, "clip", "base") is None


def test_a_damaged_file_of_the_hubs_is_fetched_again(hub, ask, tmp_path):
    path = tmp_path / "clip-base" / "model.safetensors"
    ask(tmp_path)
    path.write_bytes(b"damaged")
    ask(tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_pinned_revision_is_the_one_asked_for(hub, ask, tmp_path):
    ask(tmp_path, COMMIT)
    assert asked_of(hub)[0][1] == f"/{REPO}/resolve/{COMMIT}/model.safetensors"
    hub.log.clear()
    ask(tmp_path, COMMIT)
    assert not asked_of(hub)
    ask(tmp_path, "f" * 40)
    assert asked_of(hub)[0][1] == f"/{REPO}/resolve/{'f' * 40}/model.safetensors"


def test_the_hubs_older_format_is_taken_where_there_is_no_other(hub, ask, tmp_path):
    hub.files = "pytorch_model.bin"
    assert ask(tmp_path)[0] == str(tmp_path / "clip-base" / "pytorch_model.bin")
    hub.files = "nothing"
    assert f"hub:{REPO}: none of model.safetensors, pytorch_model.bin" in ask(tmp_path / "other")[0]


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub, ask, storage, tmp_path):
    storage.cut = 2_000_000
    ask(tmp_path)
    have = (tmp_path / "clip-base" / "model.safetensors.part").stat().st_size
    storage.content = bytes(len(CONTENT))  # so that the rest is another file's
    message, _ = ask(tmp_path)
    assert message.startswith(f"hub:{REPO}: sha256 is ") and hashlib.sha256(CONTENT).hexdigest() in message
    assert gets(storage) == [None, f"bytes={have}-"]
    assert not list((tmp_path / "clip-base").iterdir())
    storage.content = b"<!DOCTYPE html><p>Sign in"
    message, _ = ask(tmp_path)
    assert message.startswith(f"hub:{REPO}: a web page, ")
    assert message.endswith(str(tmp_path / "clip-base" / "model.safetensors"))
    assert not list((tmp_path / "clip-base").iterdir())


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "GatedRepo", f"accept its licence at https://huggingface.co/{REPO}, then `hf auth login`"),
        (403, "GatedRepo", "HF_TOKEN"),
        (401, "RepoNotFound", "HF_TOKEN"),
        (404, "RevisionNotFound", "HTTP 404; a file downloaded by hand goes into "),
    ],
)
def test_what_the_hub_refuses_is_explained(hub, ask, tmp_path, status, code, words):
    hub.status, hub.headers = status, {"X-Error-Code": code}
    message, _ = ask(tmp_path)
    assert message.startswith(f"hub:{REPO}: ") and words in message
    assert find_weights(tmp_path, "clip", "base") is None


@pytest.mark.parametrize("how", ["offline", "no answer"])
def test_no_hub_is_explained(hub, ask, tmp_path, how):
    hub.silent = how == "no answer"
    message, _ = ask(tmp_path, offline=how == "offline")
    assert message.startswith(f"hub:{REPO}: no network (")
    assert "`bench fetch --family clip --sizes base --weights DIR`" in message
    assert bool(asked_of(hub)) == hub.silent


def test_names_part_at_the_first_hyphen():
    """`<family>-<size>` is unambiguous: neither word has a hyphen."""
    for name in families.names():
        spec = families.spec(name)
        assert not [word for word in (name, *(t.size for t in (*spec.teachers, *spec.alternatives))) if "-" in word]
        assert Path(name).name == name
