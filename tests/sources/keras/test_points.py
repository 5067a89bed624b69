"""Probe points of Keras models."""

import probegen as pg
from tests import models


def test_inspect_sees_inside_custom_layers():
    points = {p.path: p for p in pg.inspect(models.transformer())}
    assert points["block_1/mha"].role == "attention"
    assert "attention" in points["block_1/mha"].probes
    assert points["embedding"].role == "embedding"
    assert "step of lstm" in pg.inspect(models.forecaster())[3].reason
