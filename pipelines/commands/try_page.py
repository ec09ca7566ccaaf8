"""``beit3 try``: a local page on which models are tried."""

import webbrowser
from contextlib import suppress
from typing import Annotated

import typer

from pipelines.commands.apply_options import Labels, Tokenizer
from pipelines.commands.options import console


def try_page(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="As of `beit3 embed`; repeatable, the page then shows what each of them can do.",
        ),
    ],
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 7860,
    host: Annotated[
        str,
        typer.Option(help="Address or name to listen on. Beyond this machine anyone may ask."),
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a web browser.")] = False,
) -> None:
    """Serve a page: drop an image, ask, compare with texts, mask patches and words.

    Example: beit3 try --model runs/demo --model runs/demo-vqa --open
    """
    from pipelines.apply.applying import load_model
    from pipelines.apply.model_location import located
    from pipelines.pretrain.start_source import is_folder
    from pipelines.try_page.panels import panels_of
    from pipelines.try_page.server import listen, make_app, server_of

    listening = listen(host, port)
    with console.status("loading"):
        models = {
            name: load_model(at)
            if is_folder(at := located(name))
            else load_model(at, tokenizer, labels)
            for name in dict.fromkeys(model)
        }
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    app = make_app(list(panels_of(models)), frozenset({host}))
    console.print(f"{address}  Ctrl-C stops it", highlight=False, soft_wrap=True)
    if open_:
        webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        server_of(app).run(sockets=[listening])
    console.print("stopped")
