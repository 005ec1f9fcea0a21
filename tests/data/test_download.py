"""Downloading from a real server on this machine that behaves as servers and networks do."""

import http.server
import io
import threading
import zipfile

import pytest
from PIL import Image

from isic_smp.data.download import download_isic2016, fetch
from isic_smp.data.isic2016 import FOLDERS, TEST, TRAINING, load_isic2016, split_lists
from isic_smp.errors import UserError

BODY = bytes(range(256)) * 4000


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`. The first `drops` answers are cut after `drop_after` bytes.

    Requests are refused with the codes of `fail_with`, to which the first cut adds `then_fail`.
    """

    def __init__(self):
        self.files, self.etag, self.ranges = {"/a.zip": BODY}, '"one"', True
        self.drops, self.drop_after, self.fail_with, self.then_fail, self.asked = 0, 300_000, [], [], []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name=""):
        return f"http://127.0.0.1:{self.server_port}{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.fail_with:
            return self.send_error(server.fail_with.pop(0))
        if self.path not in server.files:
            return self.send_error(404)
        body, start = server.files[self.path], 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if server.drops:
            server.drops -= 1
            server.fail_with, server.then_fail = server.then_fail, []
            end = min(end, start + server.drop_after)
        self.wfile.write(body[start:end])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def get(server, target, **options):
    fetch(server.url("/a.zip"), target, timeout=5, pause=0.01, **options)


def test_a_file_arrives_and_leaves_no_traces(server, tmp_path):
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [it.name for it in tmp_path.iterdir()] == ["a.zip"]
    get(server, tmp_path / "a.zip")
    assert len(server.asked) == 1, "asked again for a file that is there"


def test_a_lost_connection_goes_on_where_it_stopped(server, tmp_path):
    server.drops, server.drop_after = 6, 150_000  # more often than fruitless tries are made
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.asked == [None, *(f"bytes={150_000 * n}-" for n in range(1, 7))]


def test_a_second_start_goes_on_where_the_first_gave_up(server, tmp_path):
    server.drops, server.drop_after, server.then_fail = 1, 1000, [503] * 4
    with pytest.raises(UserError, match=r"503.*a\.zip\.part keeps what has arrived"):
        get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip.part").stat().st_size == 1000
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.asked[-1] == "bytes=1000-"


def begun(tmp_path, content, etag):
    (tmp_path / "a.zip.part").write_bytes(content)
    (tmp_path / "a.zip.part.etag").write_text(etag)


def test_a_file_that_changed_on_the_server_is_begun_anew(server, tmp_path):
    begun(tmp_path, b"of another version", '"zero"')
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_server_that_knows_no_ranges_is_no_trouble(server, tmp_path):
    server.ranges = False
    begun(tmp_path, BODY[:1000], server.etag)
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_beginning_longer_than_the_file_is_thrown_away(server, tmp_path):
    begun(tmp_path, BODY + b"more", server.etag)
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_busy_server_is_asked_again_but_a_missing_file_is_not(server, tmp_path):
    server.fail_with = [503, 500]
    get(server, tmp_path / "a.zip")
    assert len(server.asked) == 3
    with pytest.raises(UserError, match="404"):
        fetch(server.url("/absent.zip"), tmp_path / "absent.zip", timeout=5, pause=0.01)
    assert len(server.asked) == 4


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server, tmp_path):
    server.drops, server.drop_after, server.ranges = 100, 1000, False
    with pytest.raises(UserError, match="1000 of 1024000 bytes"):
        get(server, tmp_path / "a.zip")


def test_no_connection_is_one_line_with_the_address(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"cannot download http://127\.0\.0\.1:\d+/.*refused") as refusal:
        download_isic2016(tmp_path / "isic", base_url=server.url(), timeout=2, pause=0.01)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def mirror(server):
    """A server with the four archives, one pair a split in them."""
    lists = {name: min(ids) for name, ids in split_lists().items()}
    content = {TRAINING: [lists["train"], lists["val"]], TEST: [lists["test"]]}
    for (images, masks), ids in content.items():
        for folder, mode, ending in ((images, "RGB", ".jpg"), (masks, "L", "_Segmentation.png")):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for id in ids:
                    picture = io.BytesIO()
                    Image.new(mode, (8, 6)).save(picture, "JPEG" if mode == "RGB" else "PNG")
                    archive.writestr(f"{folder}/{id}{ending}", picture.getvalue())
            server.files[f"/{folder}.zip"] = packed.getvalue()
    return server


def test_the_four_archives_become_data_that_load(mirror, tmp_path):
    mirror.drops, mirror.drop_after = 2, 500
    added = download_isic2016(tmp_path / "isic", base_url=mirror.url("/"), timeout=5, pause=0.01)
    assert [it.name for it in added] == list(FOLDERS)
    assert (
        load_isic2016(tmp_path / "isic").describe()
        == "isic2016: train 1 of 810, validation 1 of 90, test 1 of 379"
    )
    left = {it.name for it in (tmp_path / "isic").iterdir() if not it.name.startswith(".")}
    assert left == set(FOLDERS), "archives or parts were left behind"
    asked = len(mirror.asked)
    assert download_isic2016(tmp_path / "isic", base_url=mirror.url()) == []
    assert len(mirror.asked) == asked


def test_a_damaged_archive_leaves_the_folders_before_it_and_can_be_fetched_again(mirror, tmp_path):
    name = f"/{FOLDERS[1]}.zip"
    whole = mirror.files[name]
    mirror.files[name] = whole[: len(whole) // 2]
    with pytest.raises(UserError, match=r"GroundTruth\.zip is not a complete zip archive"):
        download_isic2016(tmp_path, base_url=mirror.url(), timeout=5, pause=0.01)
    assert [folder for folder in FOLDERS if (tmp_path / folder).exists()] == [FOLDERS[0]]
    mirror.files[name], mirror.etag = whole, '"two"'
    added = download_isic2016(tmp_path, base_url=mirror.url(), timeout=5, pause=0.01)
    assert [it.name for it in added] == list(FOLDERS[1:])


@pytest.mark.parametrize("address", ["file:///etc", "isic-archive.com/2016"])
def test_only_web_addresses_are_taken(tmp_path, address):
    with pytest.raises(UserError, match="expected an address"):
        download_isic2016(tmp_path / "isic", base_url=address)
