"""The live view of a dataset: its whole tables in a browser, search, playing clips, and overruling a decision.

    reelmill serve --dataset films.reel                       # http://127.0.0.1:8765, for this machine alone
    reelmill serve --dataset s3://bucket/films --port 9000
    reelmill serve --dataset films.reel --token auto          # where others use this machine: the address has a token
    reelmill serve --dataset films.reel --host 0.0.0.0        # for other machines too: needs a token, as above

Nothing is written but what people say of clips (overrides/), and decisions/ when they ask for it on the page.
"""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.errors import BadInput

if TYPE_CHECKING:
    import uvicorn

    from pipelines.serve_tokens import Keys


@dataclass(frozen=True)
class ServeConfig:
    """Show a dataset in a browser: funnel, scores, every clip, search, SQL; play clips and overrule decisions.

    The page shows the tables as they are, and follows them when a command changes them. A host other than this
    machine's own (127.0.0.1) is guarded by a token, which stands in the address that is printed. 127.0.0.1 is not: on
    a machine that others work on too, such as a login node, they can read the dataset and overrule decisions. There
    give --token=auto, or a token of your own.

    Attributes:
        dataset: folder or URI of the dataset.
        host: address to listen on; 0.0.0.0 is every address of this machine.
        port: port to listen on; 0 takes a free one.
        token: what everybody must know who comes in, 16 characters or more, or auto for a new one; null takes the
            environment's REELMILL_TOKEN, which `ps` does not show, else makes one where the host is not this machine's.
        tokens: file with a line NAME TOKEN for each person, instead of `token`: who comes in by a token decides under
            its name.
        author: name that the page suggests when it asks who decides; null takes the user's name on this machine.
        clip: CLIP model for the search by text: ARCH/TAG of open_clip or a folder; null takes the model that the
            clips table names, off loads none.
        run: folder of a training run to show; null shows those in DATASET/runs.
        open: open the page in this machine's browser.

    Example:
        reelmill serve --dataset films.reel
        reelmill serve --dataset films.reel --token auto          # where others use this machine
        reelmill serve --dataset s3://bucket/films --host 0.0.0.0 --tokens people.txt
        ssh -t -L 8765:localhost:8765 HOST reelmill serve --dataset films.reel --token auto    # open its address here
    """

    dataset: str
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    tokens: str | None = None
    author: str | None = None
    clip: str | None = None
    run: str | None = None
    open: bool = False


def serve(config: ServeConfig) -> None:
    """Serve until Ctrl-C. Raises BadInput for a dataset without tables, a port in use or a host that is none."""
    import uvicorn

    from curate.dataset import Dataset
    from pipelines.overrule import user_name
    from pipelines.serve_app import application
    from pipelines.serve_guards import Door
    from pipelines.serve_live import Live
    from pipelines.serve_tokens import keys_of

    keys = keys_of(config.token, config.tokens, is_loopback=is_loopback(config.host))
    author = config.author if config.author is not None else user_name()
    if not author.strip():
        raise BadInput("--author is empty: decisions are overruled under somebody's name.")
    if config.run is not None and not Dataset(config.run).exists("metrics.jsonl"):
        raise BadInput(f"{config.run} holds no metrics.jsonl; give the folder of a training run.")
    with Live(Dataset(config.dataset), author=author, clip=config.clip, run=config.run) as live:
        listener = listen(config.host, config.port)
        port = int(listener.getsockname()[1])
        door = Door(port, keys, is_loopback(config.host))
        server = uvicorn.Server(settings(application(live, door)))
        address = address_of(config.host, port, keys)
        print(f"serve: {config.dataset} at {address} (Ctrl-C ends it)", flush=True)
        if told := _told(config, keys):
            print(f"serve: {told}", flush=True)
        if config.open:
            import webbrowser

            webbrowser.open(address)
        # Told to end (SIGTERM), it must take its temporary files with it, as on Ctrl-C; and where its terminal is
        # closed (SIGHUP), unless that is ignored (nohup).
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has finished what was being answered
            with suppress(OSError):  # the terminal may be gone
                print("serve: ended", flush=True)
        finally:
            listener.close()


def settings(app: Any) -> uvicorn.Config:
    """How uvicorn runs the application."""
    import uvicorn

    from pipelines.serve_connections import HEAD_DEADLINE_S, MOST_CONNECTIONS, PromptHTTP

    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # it would tell tokens
        server_header=False,
        http=PromptHTTP,
        ws="none",
        lifespan="off",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=int(HEAD_DEADLINE_S),
        timeout_graceful_shutdown=3,  # a film that is being played does not hold up the end
    )


def is_loopback(host: str) -> bool:
    """True for the names of this machine that no other reaches."""
    return host in ("localhost", "127.0.0.1", "::1")


def address_of(host: str, port: int, keys: Keys) -> str:
    """Where the page is, with the token if it is one for everybody."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + "".join(f"?token={key}" for key, name in keys.items() if name is None)


def _told(config: ServeConfig, keys: Keys) -> str | None:
    """What else to say at the start of who comes in."""
    if config.tokens is not None:
        names = ", ".join(sorted({str(name) for name in keys.values()}))
        return f"each opens it with their token of {config.tokens}, as /?token=TOKEN: {names}"
    if keys:
        return (
            "whoever has this address can read the dataset and overrule decisions; it is printed once. --tokens gives "
            "each person a token of their own."
        )
    return None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises BadInput, with the remedy, when it cannot."""
    if not 0 <= port <= 65535:
        raise BadInput(f"--port={port} is no port; give one from 1 to 65535, or 0 for a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio would not send small answers at once (TCP_NODELAY), but 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise BadInput(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}. Give another --port "
            "(0 takes a free one) or --host."
        ) from error
    return listener


def main(argv: list[str] | None = None) -> int:
    from pipelines.cli import run_command

    return run_command(ServeConfig, serve, argv, name="serve")


if __name__ == "__main__":
    raise SystemExit(main())
