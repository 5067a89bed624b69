"""Probes: validated when written down, and the same after a round trip through text."""

import pytest

import probegen as pg
from probegen.errors import SpecError
from probegen.methods import text_forms
from probegen.methods.lookup import as_probes

PROBES = (
    pg.Activations("conv*", reduce="mean", axes=(1, 2), channels=[0, 3], dtype="float16"),
    pg.Attention(),
    pg.Attention("block*", reduce="heads,top:5", stack=True),
    pg.InputGradient(target=3, wrt=["a", "b"]),
    pg.Saliency(target=(None, 2), name="s", output="label", logits=False),
    pg.GradCAM("conv2"),
    pg.IntegratedGradients(steps=8, baseline=-1.0, target="input"),
    pg.Saliency(target="top:3"),
    pg.Saliency(target="all"),
    pg.Saliency(target=[4, 1]),
    pg.Saliency(target=(4, 1)),
    pg.Saliency(target=pg.contrast(3, "runner_up")),
)


def test_json_round_trip():
    assert text_forms.from_json(text_forms.to_json(PROBES)) == text_forms.from_json(
        text_forms.to_json(text_forms.from_json(text_forms.to_json(PROBES)))
    )
    assert text_forms.from_json(text_forms.to_json(PROBES[3:])) == PROBES[3:]


def test_toml():
    text = """
    [[probes]]
    probe = "grad_cam"
    layer = "conv5"
    target = ["all", 3]

    [[probes]]
    probe = "activations"
    select = "type:Conv2D"
    reduce = "norm"
    """
    expected = (pg.GradCAM("conv5", target=(None, 3)), pg.Activations("type:Conv2D", reduce="norm"))
    assert text_forms.from_toml(text) == expected


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.Activations("a", reduce="median"), "'mean', 'max', 'norm'"),
        (lambda: pg.Activations("a", axes=(1,)), "give reduce='mean' too"),
        (lambda: pg.Activations("a", reduce="max", axes=(0, 1)), "batch axis"),
        (lambda: pg.Activations("a", dtype="int8"), "float16"),
        (lambda: pg.Saliency(name=" "), "non-empty"),
        (lambda: pg.Saliency(logits=1), "True or False"),
        (lambda: pg.IntegratedGradients(steps=0), "at least 1"),
        (lambda: pg.IntegratedGradients(baseline=float("nan")), "finite"),
        (lambda: as_probes([pg.Saliency]), r"write pg.Saliency\("),
        (lambda: as_probes("saliency"), "a list of probes"),
        (lambda: text_forms.from_dict({"probe": "salience"}), "Did you mean 'saliency'"),
        (lambda: text_forms.from_dict({"probe": "saliency", "targt": 1}), "Did you mean 'target'"),
        (lambda: text_forms.from_toml("x = ["), "not valid TOML"),
        (lambda: text_forms.from_json("{}"), r"\[\[probes\]\]"),
        (lambda: text_forms.to_json([pg.Saliency(target=len)]), "no text form"),
    ],
)
def test_refusals_say_what_would_work(make, says):
    with pytest.raises(SpecError, match=says):
        make()


def test_a_list_of_classes_and_a_tuple_are_told_apart():
    text = """
    [[probes]]
    probe = "saliency"
    target = {classes = [1, 4]}

    [[probes]]
    probe = "saliency"
    target = [1, 4]

    [[probes]]
    probe = "saliency"
    target = "contrast(argmax, 2)"
    """
    several, entry, difference = text_forms.from_toml(text)
    assert several.target == [1, 4]
    assert entry.target == (1, 4)
    assert difference.target == pg.contrast("argmax", 2)
    with pytest.raises(SpecError, match="classes = "):
        text_forms.from_dict({"probe": "saliency", "target": {"class": [1]}})
