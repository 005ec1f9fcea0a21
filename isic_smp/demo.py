"""A page to look at: drop images, see the lesion's outline, move the threshold, save the mask.

    python -m isic_smp.demo
    python -m isic_smp.demo --model runs/20260102-030405-frozen-seed0
    python -m isic_smp.demo --model models:/lesions@champion --model models:/lesions/4 --port 8000

Without --model it offers all registered models, and the one that comes with the package. Several models are shown side by side. The page is
served to this machine only and fetches nothing from elsewhere; Ctrl-C ends it.

Needs Gradio: pip install 'isic-smp[demo]'
"""

import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from isic_smp import cli
from isic_smp.errors import UserError

if TYPE_CHECKING:
    from isic_smp.demo_page.models import Models

PROG = "python -m isic_smp.demo"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is shown, and where."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A run's --output-dir, a model folder, a run id, runs:/ID, models:/NAME@ALIAS or models:/NAME/3.
    Again for more, side by side. Default: the registered models and the package's own."""
    host: str = "127.0.0.1"
    """Address to serve at. Any but this machine's own lets others in, without a password."""
    port: int = 7860
    """0: any free one."""
    tracking_uri: str | None = None
    """MLflow store of runs and registered models. Default: MLFLOW_TRACKING_URI, else ./mlruns."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until it is interrupted."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio: pip install 'isic-smp[demo]'")
    # All that can be wrong is found out before the slow imports, or else before the address is printed.
    with listen(options.host, options.port) as door:
        models = open_models(options)
        url = f"http://{_in_url(options.host)}:{door.getsockname()[1]}"
        if not is_loopback(options.host):
            print(
                f"WARNING: {url} is open to everyone who reaches this machine, without password or encryption",
                file=sys.stderr,
            )
        from isic_smp.demo_page.server import serve

        # Ended by SIGTERM too, the uploaded images must go.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with tempfile.TemporaryDirectory(prefix="isic_smp_demo_") as uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads
            names = "; ".join(choice.label for choice in models.choices)
            serve(
                models,
                door,
                hosts=names_in_requests(options.host),
                on_ready=lambda: print(f"models: {names}\npage: {url}  (Ctrl-C ends it)", flush=True),
            )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at the address.

    Raises:
        UserError: the port is taken or forbidden, or the address is not this machine's.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port must lie between 0 and 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, protocol)
        # Or the port stays taken for a minute after the page was ended.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen()
    except OSError as error:
        raise UserError(
            f"cannot serve at {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from None
    return door


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_in_requests(host: str) -> list[str]:
    """What a browser may call the page when it is served at `host`; `*`: anything."""
    # An IPv6 address stands in brackets, as in the page's own address.
    return [_in_url(host), "localhost", "127.0.0.1", "[::1]"] if is_loopback(host) else ["*"]


def open_models(options: Options) -> "Models":
    """The models to choose from; those that are shown at first are loaded, so that mistakes show now.

    Raises:
        UserError: a model cannot be loaded, or there is none.
    """
    from isic_smp.demo_page.models import Models, named_choices, registered_choices
    from isic_smp.training.device import choose_device

    device = choose_device(options.device)
    if options.model:
        choices = named_choices(options.model)
        start = [choice.spec for choice in choices]
    else:
        choices, start = registered_choices(options.tracking_uri)
    models = Models(choices, start, device=device, tracking_uri=options.tracking_uri)
    for spec in start:
        models.predictor(spec)
    return models


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    cli.command(main, prog=PROG)
