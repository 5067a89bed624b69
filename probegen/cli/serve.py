"""`probegen serve`: an artefact behind the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from probegen.cli.options import engine_of, with_engine, with_max_batch, with_model_name
from probegen.cli.showing import start_for
from probegen.errors import SpecError

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("artefact", type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 for any that is free, which the log tells.",
)
@with_model_name
@click.option("--model-version", default="1", show_default=True, help="Its version.")
@with_engine
@click.option("--threads", type=click.IntRange(1), help="Threads within an operator.")
@with_max_batch
@click.option(
    "--max-delay",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    metavar="MS",
    help="Milliseconds that a request waits for others to join it.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Most requests that wait; others get status 503.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Batches that are run at a time.",
)
@click.option(
    "--max-body",
    type=click.FloatRange(0, min_open=True),
    default=64.0,
    show_default=True,
    metavar="MB",
    help="Largest request.",
)
@click.option(
    "--drift-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of explained requests that are compared with the reference that ARTEFACT was "
    "compiled with.",
)
@click.option(
    "--drift-window",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="How many of the latest samples are compared with it.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    help="What is logged to standard error, a JSON object a line.",
)
def serve(artefact: str, host: str, port: int, **options: Any) -> None:
    """Serve ARTEFACT over HTTP by the Open Inference Protocol (V2), as KServe and Triton speak it.

    \b
    POST /v2/models/NAME/infer   predictions; explanations where a request's parameters
                                 say {"explain": true}, for the class in "target"
    GET  /v2/models/NAME         inputs, outputs and what they mean
    GET  /v2/health/ready        also /v2/health/live, /v2/models/NAME/ready
    GET  /metrics                for Prometheus

    Requests that arrive together are run together, explanations apart from predictions. Ends at
    SIGTERM when all that waits is answered.
    """
    from probegen import runtime
    from probegen.serve.inference import Served
    from probegen.serve.protocol import check_model_name

    try:
        from probegen.serve.app import Server, Settings
        from probegen.serve.running import run
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{error.name} is not installed, and the server needs it: "
            "pip install 'probegen[serve]'."
        ) from error
    from probegen.serve.batching import Limits

    name = check_model_name(options["name"] or Path(artefact).stem)
    start_for(artefact)
    loaded = runtime.load(artefact, threads=options["threads"], **engine_of(options))
    limits = Limits(
        options["max_batch"], options["max_delay"] / 1e3, options["queue"], options["runs"]
    )
    largest = int(options["max_body"] * 2**20)
    settings = Settings(limits, largest, options["drift_rate"], options["drift_window"])
    server = Server(Served(loaded, name, options["model_version"]), settings)
    run(server, host, port, options["log_level"])
