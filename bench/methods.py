"""Methods on one network: over the passes they are made of, and over peers in the same run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.make import MakeError, make
from bench.race import Timing, race, ratio
from bench.tables import failed, head, row

COLUMNS = (
    "method",
    "passes",
    "ms",
    "one pass of it/one pass",
    "peak memory/plain",
    "file, KB more",
    "Xplique/method",
    "captum/method",
)
#: What one pass is: the plain prediction, or the prediction with its input gradient.
PLAIN, EXPLAIN = "plain", "explain"


@dataclasses.dataclass(frozen=True)
class Method:
    """A method as it is timed.

    Attributes:
        probe: its class in probegen.
        fields: what it is given; arrays as the shape of random numbers, `{"random": shape}`.
        passes: how many passes it is made of.
        one: which pass: `PLAIN` or `EXPLAIN`.
        xplique, captum: the peers' class and its arguments, None where they have none.
    """

    probe: str
    fields: dict[str, Any]
    passes: int
    one: str
    xplique: tuple[str, dict[str, Any]] | None = None
    captum: tuple[str, dict[str, Any], dict[str, Any]] | None = None


#: By name. Xplique's arguments go to the class, captum's to the class and to `attribute`.
METHODS: dict[str, Method] = {
    "Saliency": Method("Saliency", {}, 1, EXPLAIN, ("Saliency", {}), ("Saliency", {}, {})),
    "GradientXInput": Method(
        "GradientXInput", {}, 1, EXPLAIN, ("GradientInput", {}), ("InputXGradient", {}, {})
    ),
    "GuidedBackprop": Method(
        "GuidedBackprop", {}, 1, EXPLAIN, ("GuidedBackprop", {}), ("GuidedBackprop", {}, {})
    ),
    "Deconvnet": Method("Deconvnet", {}, 1, EXPLAIN, ("DeconvNet", {}), ("Deconvolution", {}, {})),
    "LRP": Method("LRP", {}, 1, EXPLAIN, None, ("LRP", {}, {})),
    "DeepLIFT": Method("DeepLIFT", {"baseline": 0.0}, 1, EXPLAIN, None, ("DeepLift", {}, {})),
    "IntegratedGradients(16)": Method(
        "IntegratedGradients",
        {"steps": 16},
        16,
        EXPLAIN,
        ("IntegratedGradients", {"steps": 16, "batch_size": 16}),
        ("IntegratedGradients", {}, {"n_steps": 16, "internal_batch_size": 16}),
    ),
    "SmoothGrad(16)": Method(
        "SmoothGrad",
        {"samples": 16, "noise": 0.1},
        16,
        EXPLAIN,
        ("SmoothGrad", {"nb_samples": 16, "batch_size": 16}),
        None,
    ),
    "ExpectedGradients(16)": Method(
        "ExpectedGradients",
        {"background": {"random": [4, 224, 224, 3]}, "samples": 16},
        16,
        EXPLAIN,
    ),
    "GradCAM": Method("GradCAM", {}, 1, PLAIN, ("GradCAM", {}), None),
    "GradCAMPlusPlus": Method("GradCAMPlusPlus", {}, 1, PLAIN, ("GradCAMPP", {}), None),
    "EigenCAM": Method("EigenCAM", {}, 1, PLAIN),
    "Occlusion(56)": Method(
        "Occlusion",
        {"window": 56},
        16,
        PLAIN,
        ("Occlusion", {"patch_size": 56, "patch_stride": 56, "batch_size": 16}),
        (
            "Occlusion",
            {},
            {"sliding_window_shapes": [3, 56, 56], "strides": [3, 56, 56]},
        ),
    ),
    "RISE(64)": Method(
        "RISE",
        {"masks": 64, "cells": 7, "keep": 0.5},
        64,
        PLAIN,
        ("Rise", {"nb_samples": 64, "grid_size": 7, "batch_size": 16}),
        None,
    ),
    "KernelSHAP(64)": Method(
        "KernelSHAP",
        {"groups": "grid:4", "samples": 64},
        64,
        PLAIN,
        ("KernelShap", {"nb_samples": 64, "batch_size": 16}),
        None,
    ),
    "LIME(64)": Method(
        "LIME",
        {"groups": "grid:7", "samples": 64},
        64,
        PLAIN,
        ("Lime", {"nb_samples": 64, "batch_size": 16}),
        None,
    ),
}


def compare_methods(
    subject: str, names: Sequence[str], rounds: int, peers: bool, cpu: bool = False
) -> list[dict[str, Any]]:
    """Prints a row for each method as it is measured, and returns the figures.

    Args:
        subject: the network.
        names: of the methods.
        rounds: how often contestants take turns.
        peers: whether to time peers as well.
        cpu: count the processor's time, with one thread: steady on a machine that others use too.
    """
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        job = {"subject": subject, "folder": folder, "batches": [1]}
        make({**job, "stage": "method", "file": PLAIN, "probes": []})
        make({**job, "stage": "method", "file": EXPLAIN, "probes": [["InputGradient", {}]]})
        click.echo(head(COLUMNS))
        for name in names:
            method = METHODS[name]
            try:
                probes = [[method.probe, method.fields]]
                make({**job, "stage": "method", "file": "method", "probes": probes})
            except MakeError as error:
                click.echo(failed(COLUMNS, name, error))
                figures.append({"method": name, "error": str(error)})
                continue
            jobs = _jobs(subject, place, method, peers)
            how = {"cpu": True, "threads": 1} if cpu else {}
            timings = race({name: {**one, **how} for name, one in jobs.items()}, rounds)
            figures.append(_figures(name, method, place, timings))
            click.echo(row(figures[-1][column] for column in COLUMNS))
    click.echo(
        f"\n{subject}, batch 1; one pass is the plain prediction for methods of scores and of a "
        "layer, else the prediction with its input gradient; ratios of medians (range over rounds)"
        + ("; processor time, one thread" if cpu else "")
    )
    return figures


def _jobs(subject: str, folder: Path, method: Method, peers: bool) -> dict[str, dict[str, Any]]:
    feed = {"feed": str(folder / "feed_1.npz")}
    jobs: dict[str, dict[str, Any]] = {
        name: {"runner": "onnx", "path": str(folder / f"{name}.onnx"), **feed}
        for name in (PLAIN, EXPLAIN, "method")
    }
    for peer, runner, own in (
        ("Xplique", "xplique", method.xplique),
        ("captum", "captum", method.captum),
    ):
        if peers and own:
            jobs[peer] = {"runner": runner, "subject": subject, "method": own, **feed}
    return jobs


def _figures(name: str, method: Method, folder: Path, timings: dict[str, Timing]) -> dict[str, Any]:
    own, one, plain = timings["method"], timings[method.one], timings[PLAIN]
    more = (folder / "method.onnx").stat().st_size - (folder / f"{PLAIN}.onnx").stat().st_size
    values = (
        name,
        method.passes,
        f"{own.median * 1e3:.1f}",
        str(ratio(own, one, method.passes)),
        f"{own.peak_bytes / plain.peak_bytes:.2f}",
        f"{more / 1024:.0f}",
        *(str(ratio(timings[p], own)) if p in timings else "-" for p in ("Xplique", "captum")),
    )
    return dict(zip(COLUMNS, values, strict=True))
