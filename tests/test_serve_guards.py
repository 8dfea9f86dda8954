"""Who the live view lets in: every guard over real HTTP, with a request that passes beside those that do not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from serve_small import Served, served, until
from small_dataset import build, clip_id

from curate.dataset import Dataset
from curate.errors import BadInput
from curate.overrides import latest
from pipelines.serve import address_of, is_loopback, settings
from pipelines.serve_connections import MOST_CONNECTIONS
from pipelines.serve_files import FILES
from pipelines.serve_guards import MAX_BODY, MAX_URL
from pipelines.serve_tokens import keys_of

TOKEN, ANN, BEN = "a-token-of-enough-letters", "anns-token-of-her-own", "bens-token-of-his-own"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return build(tmp_path_factory.mktemp("guards"))


@pytest.fixture(scope="module")
def server(dataset: Dataset) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(dataset: Dataset) -> Iterator[Served]:
    with served(dataset, keys={TOKEN: None}, is_loopback=False) as running:
        yield running


def raw(port: int, request: bytes, leaves: bool = False) -> bytes:
    """What comes back for bytes that no client would send; it may leave before the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        if leaves:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/static/../serve.py",
        "/static/..%2fserve.py",
        "/static/%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/static/..%5c..%5cpyproject.toml",
        "/static//etc/passwd",
        "/static/%2Fetc%2Fpasswd",
        "/static/live.js%00.css",
        "/static/",
        "/static/live.html",
        "/clips/../../clips/part-00000.parquet",
        "/clips/..%2f..%2fclips%2fpart-00000.parquet/video",
        "/clips/%2e%2e/video",
        "/clips/%2e%2e%2f%2e%2e/strip.webp",
        "/clips/' OR '1'='1/video".replace(" ", "%20"),
        "/api/clips/..%2f..",
        "/api/clips/%00",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(server: Served, path: str) -> None:
    status, _, data = server.ask(path)
    assert status == 404
    assert "error" in json.loads(data)


def test_files_come_from_a_fixed_list(server: Served) -> None:
    for name, file in FILES.items():
        status, headers, data = server.ask(f"/static/{name}")
        assert (status, data, headers["content-type"]) == (200, file.data, file.kind)


def test_the_page_keeps_to_itself(server: Served) -> None:
    for path in ("/", "/api/state", "/static/live.js", "/nothing", f"/clips/{clip_id('b1')}/strip.webp"):
        _, headers, _ = server.ask(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers


def test_only_this_machines_own_names_are_answered(server: Served) -> None:
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        assert server.ask("/api/state", host=f"{host}:{server.port}")[0] == 200
    for host in ("films.example", f"films.example:{server.port}", "localhost", f"localhost:{server.port + 1}",
                 f"localhost.films.example:{server.port}", f"127.0.0.1.nip.io:{server.port}", ""):  # fmt: skip
        status, why = server.refused("/api/state", host=host)
        assert status == 403
        assert "this server is called localhost" in why
    assert raw(server.port, b"GET /api/state HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403")


def test_other_origins_are_refused(server: Served, dataset: Dataset) -> None:
    own = f"http://127.0.0.1:{server.port}"
    decision = f"/api/clips/{clip_id('a0')}/decision"
    assert server.ask("/api/state", origin=own, sec_fetch_site="same-origin")[0] == 200
    for origin in (
        "https://films.example",
        "null",
        f"http://127.0.0.1:{server.port + 1}",
        f"http://localhost:{server.port}",
        "",
    ):
        for path, body in (("/api/state", None), ("/api/clips", None), (decision, {"keep": False}), ("/api/decide", {}),
                           ("/api/sql", {"sql": "SELECT 1"}), ("/clips/x/video", None), ("/", None)):  # fmt: skip
            status, why = server.refused(path, body, origin=origin)
            assert status == 403, (origin, path)
            assert "only the live view's own page may" in why
    for site in ("cross-site", "same-site", "anything"):
        for path, body in (("/api/state", None), (decision, {"keep": False}), ("/static/live.js", None)):
            assert server.refused(path, body, sec_fetch_site=site)[0] == 403
    assert latest(dataset) == {}


def test_others_may_link_to_the_page_and_to_nothing_else(server: Served) -> None:
    followed = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert server.ask("/?view=clips", **followed)[0] == 200
    assert server.ask("/api/state", **followed)[0] == 403
    assert server.ask("/", **{**followed, "sec_fetch_dest": "iframe"})[0] == 403


def test_a_form_of_another_site_cannot_decide(server: Served, dataset: Dataset) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        status, _, data = server.ask(
            f"/api/clips/{clip_id('a0')}/decision", b'{"keep": false}', content_type=kind
        )
        assert status == 415, data
    assert latest(dataset) == {}


def test_methods_that_an_address_has_not(server: Served) -> None:
    assert server.ask("/api/sql")[0] == 405
    assert server.ask("/api/state", {})[0] == 405
    assert server.ask("/", {}, method="DELETE")[0] == 405
    assert server.ask("/", {}, method="PUT")[0] == 405


def test_large_requests_are_refused(server: Served) -> None:
    fits = json.dumps({"sql": "SELECT 1", "more": "x" * (MAX_BODY - 60)}).encode()
    assert len(fits) <= MAX_BODY
    assert server.ask("/api/sql", fits, content_type="application/json")[0] == 200
    status, why = server.refused(
        "/api/sql", fits + b" " * (MAX_BODY + 1 - len(fits)), content_type="application/json"
    )
    assert (status, why) == (413, "the request is larger than 65,536 bytes.")


def test_large_requests_without_a_length_are_refused(server: Served) -> None:
    head = f"POST /api/sql HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
    head += "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    small = json.dumps({"sql": "SELECT 42"}).encode()
    answer = raw(server.port, head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(small), small))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"[[42]]" in answer
    piece = b"1000\r\n" + b" " * 4096 + b"\r\n"
    assert raw(server.port, head.encode() + piece * 17 + b"0\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_a_length_that_lies(server: Served) -> None:
    """Shorter than what comes: the rest is no request. Longer: it is not waited for once the client has gone."""
    body = json.dumps({"sql": "SELECT 42"}).encode()
    head = f"POST /api/sql HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
    head += "Connection: close\r\n"
    answer = raw(server.port, f"{head}Content-Length: 2\r\n\r\n".encode() + b"{}" + b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"[[42]]" not in answer
    assert b"200 OK" not in raw(
        server.port, f"{head}Content-Length: 500\r\n\r\n".encode() + body, leaves=True
    )
    for length in ("-1", "1e9", "70000000000000000000000", "2, 900"):
        answer = raw(server.port, f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413"), (length, answer)
    assert server.ask("/api/state")[0] == 200


def test_a_request_that_never_ends_is_given_up(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_guards.BODY_DEADLINE_S", 0.2)
    head = f"POST /api/sql HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 500\r\n\r\n{{".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_request_that_drips_in_is_given_up(server: Served, monkeypatch) -> None:
    """The deadline is for the whole body, and not for each of its bytes."""
    monkeypatch.setattr("pipelines.serve_guards.BODY_DEADLINE_S", 0.5)
    head = f"POST /api/sql HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as connection:
        connection.sendall(f"{head}Content-Length: 500\r\n\r\n".encode())
        for _ in range(100):
            connection.sendall(b" ")
            with suppress(TimeoutError):
                assert connection.recv(65536).startswith(b"HTTP/1.1 408")
                return
    raise AssertionError("a hundred bytes were waited for, a tenth of a second each")


@pytest.mark.parametrize("sent", [b"", b"GET /api/state HTTP/1.1\r\nHost: x", b"POST /api/sql HTTP/1.1\r\n"])
def test_a_head_that_is_not_whole_is_not_waited_for(server: Served, monkeypatch, sent: bytes) -> None:
    monkeypatch.setattr("pipelines.serve_connections.HEAD_DEADLINE_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        assert connection.recv(65536) == b""


def test_a_second_head_is_not_waited_for_either(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_connections.HEAD_DEADLINE_S", 0.3)
    whole = f"GET /api/state HTTP/1.1\r\nHost: localhost:{server.port}\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(whole + b"\r\n" + whole)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    assert found.count(b"HTTP/1.1 200 OK") == 1


def test_an_answer_may_take_longer_than_a_head(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_connections.HEAD_DEADLINE_S", 0.1)
    sql = "SELECT max(a.range * b.range % 7) AS m FROM range(20000) a, range(20000) b"
    assert server.json("/api/sql", {"sql": sql})["rows"] == [[6]]


def test_one_address_holds_some_of_the_connections_only(server: Served, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.serve_connections.MOST_OF_ONE", 5)
    with ExitStack() as held:
        for _ in range(5):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        until(lambda: _is_turned_away(server.port))
    until(lambda: not _is_turned_away(server.port))
    assert server.ask("/api/state")[0] == 200


def _is_turned_away(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as more:
        try:
            return more.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def test_only_so_many_connections_are_answered(server: Served) -> None:
    """More of them would take all the files that the server may open."""
    assert settings(server).limit_concurrency == MOST_CONNECTIONS == 500


def test_long_addresses_are_refused(server: Served) -> None:
    assert server.ask("/api/state?" + "x" * (MAX_URL - 100))[0] == 200
    assert server.ask("/api/state?" + "x" * MAX_URL)[0] == 414
    assert server.ask("/" + "x" * MAX_URL)[0] == 414


def test_without_the_token_nothing_is_told(guarded: Served) -> None:
    for path in (
        "/",
        "/static/live.js",
        "/api/state",
        "/api/clips",
        f"/clips/{clip_id('a0')}/video",
        "/nothing",
    ):
        for headers in ({}, {"authorization": "Bearer nothing"}, {"authorization": f"Basic {TOKEN}"},
                        {"authorization": f"Bearer {TOKEN}x"}, {"authorization": "Bearer \xe9"},
                        {"cookie": f"reelmill_{guarded.port}=nothing"}, {"cookie": f"reelmill_1={TOKEN}"},
                        {"cookie": ";;;=\x7f"}):  # fmt: skip
            status, _, data = guarded.ask(path, **headers)
            assert status == 401, (path, headers)
            assert TOKEN.encode() not in data
    for asked in ("token=", "token=nothing", f"token={TOKEN}&token=nothing"):
        assert guarded.ask(f"/?{asked}")[0] == 401


def test_the_token_opens_every_door(guarded: Served) -> None:
    assert guarded.ask("/api/state", authorization=f"Bearer {TOKEN}")[0] == 200
    status, headers, _ = guarded.ask(f"/?view=clips&token={TOKEN}&q=a%20b")
    assert status == 303
    assert headers["location"] == "/?view=clips&q=a+b"  # the token stays out of the history
    cookie = headers["set-cookie"]
    assert cookie == f"reelmill_{guarded.port}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert guarded.ask("/api/state", cookie=cookie.partition(";")[0])[0] == 200
    assert guarded.ask(f"//films.example/?token={TOKEN}")[1]["location"] == "/films.example/"
    assert guarded.ask(f"/%5cfilms.example/?token={TOKEN}")[1]["location"].startswith("/%5c")


def test_other_names_are_answered_where_there_is_a_token(guarded: Served) -> None:
    assert guarded.ask("/api/state", host="films.example:99", authorization=f"Bearer {TOKEN}")[0] == 200
    for headers in ({"origin": "https://elsewhere.example"}, {"sec_fetch_site": "cross-site"}):
        assert guarded.ask("/api/state", authorization=f"Bearer {TOKEN}", **headers)[0] == 403


def test_a_token_is_made_where_others_reach_the_page(monkeypatch) -> None:
    monkeypatch.delenv("REELMILL_TOKEN", raising=False)
    keys = keys_of(None, None, is_loopback=False)
    (made,) = keys
    assert len(made) >= 40
    assert keys == {made: None}
    assert keys != keys_of(None, None, is_loopback=False)
    assert address_of("10.0.0.7", 8765, keys) == f"http://10.0.0.7:8765/?token={made}"
    assert keys_of(None, None, is_loopback=True) == {}
    for host in ("127.0.0.1", "localhost", "::1"):
        assert is_loopback(host)
    assert not is_loopback("192.168.1.2")
    assert not is_loopback("127.0.0.1.films.example")
    for bad in ("short", "a token with spaces in it", "semicolon;semicolon;", ""):
        with pytest.raises(BadInput, match=r"^--token must be 16 characters or more"):
            keys_of(bad, None, is_loopback=True)


def test_this_machine_can_ask_for_a_token_too(monkeypatch) -> None:
    """Where others work on it: of one's own, a new one, or one that `ps` does not show."""
    monkeypatch.delenv("REELMILL_TOKEN", raising=False)
    assert keys_of(TOKEN, None, is_loopback=True) == {TOKEN: None}
    (made,) = keys_of("auto", None, is_loopback=True)
    assert len(made) >= 40
    monkeypatch.setenv("REELMILL_TOKEN", TOKEN)
    assert keys_of(None, None, is_loopback=True) == {TOKEN: None}
    assert keys_of("another-token-than-that", None, is_loopback=True) == {"another-token-than-that": None}
    monkeypatch.setenv("REELMILL_TOKEN", "short")
    with pytest.raises(BadInput, match=r"^REELMILL_TOKEN must be 16 characters or more"):
        keys_of(None, None, is_loopback=True)
    monkeypatch.setenv("REELMILL_TOKEN", "")
    assert keys_of(None, None, is_loopback=True) == {}


def test_a_file_of_tokens(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("REELMILL_TOKEN", TOKEN)  # a flag counts before it
    file = tmp_path / "people.txt"

    def people(text: str | bytes, mode: int = 0o600) -> dict[str, str | None]:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return keys_of(None, str(file), is_loopback=False)

    assert people(f"# who may\n\nann {ANN}\nBen  of Ulm\t{BEN}\n") == {ANN: "ann", BEN: "Ben of Ulm"}
    wrong = {
        f"ann {ANN}\nben short\n": r"people\.txt, line 2: not NAME TOKEN",
        f"{ANN}\n": r"line 1: not NAME TOKEN",
        f"{'x' * 101} {ANN}\n": r"line 1: not NAME TOKEN\. A name has 1 to 100 characters",
        f"ann {ANN}\nben {ANN}\n": r"line 2: this token is there already; each person has another\.",
        "# nobody\n": r"has no line NAME TOKEN: nobody could come in\.",
        b"\xff\xfe": r"cannot be read as a file of tokens",
    }
    for text, told in wrong.items():
        with pytest.raises(BadInput, match=told) as raised:
            people(text)
        assert ANN not in str(raised.value)
    for mode in (0o640, 0o604):
        with pytest.raises(BadInput, match="others of this machine can read"):
            people(f"ann {ANN}\n", mode)
    with pytest.raises(BadInput, match="give --token, one for everybody, or --tokens"):
        keys_of(TOKEN, str(file), is_loopback=False)
    with pytest.raises(BadInput, match="cannot be read as a file of tokens"):
        keys_of(None, str(tmp_path / "none"), is_loopback=False)


def test_each_token_has_its_name(dataset: Dataset) -> None:
    keys = {ANN: "ann", BEN: "Ben of Ulm", TOKEN: None}
    with served(dataset, keys=keys, is_loopback=False) as server:
        for token, name in keys.items():
            for headers in (
                {"authorization": f"Bearer {token}"},
                {"cookie": f"reelmill_{server.port}={token}"},
            ):
                told = json.loads(server.ask("/api/state", **headers)[2])
                assert (told["author"], told["asks_name"]) == (name or "ann", name is None)
            cookie = server.ask(f"/?token={token}")[1]["set-cookie"]
            assert cookie.startswith(f"reelmill_{server.port}={token};")
        assert server.ask(f"/?token={ANN}&token={BEN}")[0] == 401
        assert server.ask("/api/state", authorization=f"Bearer {ANN[:-1]}")[0] == 401
        assert server.ask("/api/state")[0] == 401
