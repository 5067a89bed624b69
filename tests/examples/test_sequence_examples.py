"""The examples of texts, series, sounds and films: what their data is, and that they run."""

import datetime
import importlib

import numpy as np
import pytest

from probegen import runtime

#: The artefact's outputs beside the prediction, by the example's name.
OUTPUTS = {
    "sentiment": {"integrated_gradients/text", "occlusion/text"},
    "misspellings": {"integrated_gradients/word", "integrated_gradients/other"},
    "dates": {"attention/look_back", "gradient_x_input/date"},
    "forecast": {"integrated_gradients/figures", "states/reader"},
    "keywords": {"activation/spectrogram", "integrated_gradients/spectrogram", "occlusion/wave"},
    "moving_digits": {"gradient_x_input/film", "states/motion", "states/motion:1"},
}
PNG = b"\x89PNG\r\n\x1a\n"


def example(name):
    return importlib.import_module(f"example_{name}")


def test_make_examples_runs_all_of_them():
    assert set(importlib.import_module("all_examples").NAMES) == set(OUTPUTS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_example_leaves_an_artefact_pictures_and_a_report(name, tmp_path, capsys):
    folder = example(name).main(tmp_path, epochs=1)
    artefact = runtime.load(folder / f"{name}.onnx")
    explained = {o.name for o in artefact.manifest.explanations}
    assert {o for o in explained if not o.startswith("completeness/")} == OUTPUTS[name]
    pictures = list(folder.glob("*.png"))
    assert pictures
    assert all(p.read_bytes().startswith(PNG) for p in pictures)
    report = (folder / "report.html").read_text("utf-8")
    assert all(name in report for name in OUTPUTS[name])
    assert "ONNX" in capsys.readouterr().out


def test_reviews_are_judged_as_their_words_say():
    sentiment = example("sentiment")
    data = sentiment.load_data()
    assert not set(data.train_texts) & set(data.test_texts)
    assert not {*data.train_texts, *data.test_texts} & set(sentiment.SHOWN)
    assert 0.3 < data.y_train.mean() < 0.7
    taken = sentiment.without_each_word("The soup was not good")
    assert np.argmin(taken) == 3  # without the "not" it would be good
    assert taken[1] == 0


def test_misspellings_are_no_words_and_none_of_the_test_words_was_trained_with():
    misspellings = example("misspellings")
    data, known = misspellings.load_data(), set(misspellings.lexicon())
    for pairs, labels in ((data.train, data.y_train), (data.test, data.y_test)):
        assert all(
            (other in known) == (label == 0)
            for (_, other), label in zip(pairs, labels, strict=True)
        )
        assert all(word != other for word, other in pairs)
    trained = {word for word, _ in data.train}
    assert not trained & ({word for word, _ in data.test} | {w for w, _ in misspellings.SHOWN})
    assert "".join(misspellings.decode(misspellings.encode(["abyz", "a"])[0])) == "abyz"


def test_dates_are_spelt_right_and_none_of_the_test_days_was_trained_with():
    dates = example("dates")
    data = dates.load_data()
    assert not {iso for _, iso in data.train} & {iso for _, iso in data.test}
    forms = {"%A, %d %B %Y", "%B %d, %Y", "%m/%d/%Y", "%m/%d/%y", "%Y/%m/%d", "%d %b '%y"}
    read = 0
    for text, iso in data.train:
        for form in forms:
            try:
                day = datetime.datetime.strptime(text, form)
            except ValueError:
                continue
            read += 1
            assert (day.month, day.day) == (int(iso[5:7]), int(iso[8:]))
            assert day.year % 100 == int(iso[2:4])
    assert read > len(data.train) / 3
    given = dates.feeds([("3/3/98", "1998-03-03")])
    assert "".join(dates.decode(given["written"][0], dates.WRITTEN)) == "<1998-03-0"


def test_a_forecast_is_of_what_followed_its_window():
    forecast = example("forecast")
    data = forecast.load_data()
    for x, y, last in zip(data.x_test, data.y_test, data.last, strict=True):
        np.testing.assert_array_equal(x[-1], data.table[last])
        np.testing.assert_allclose(
            x[-1, 0] + y[:, 0], data.table[last + 1 : last + 5, 0], atol=1e-5
        )
    assert data.quarters[data.last[0]] == forecast.FIRST_TEST
    assert np.isfinite(data.table).all()
    # Growth of the year 2008 was negative at its end, unemployment rose to 9.6 by autumn 2009.
    at = {str(quarter): row for quarter, row in zip(data.quarters, data.table, strict=True)}
    assert at["2008-10"][1] < -4
    assert at["2009-07"][0] == pytest.approx(9.6)


def test_words_are_louder_while_they_are_spoken():
    keywords = example("keywords")
    data = keywords.load_data(3, 10)
    assert set(data.y_train) | set(data.y_test) == set(range(len(keywords.WORDS)))
    seconds = np.arange(keywords.LENGTH) / keywords.RATE
    for wave, (begin, end) in zip(data.x_test[..., 0], data.spoken, strict=True):
        assert 0 < begin < end < seconds[-1]
        inside = (begin < seconds) & (seconds < end)
        assert np.std(wave[inside]) > 3 * np.std(wave[~inside])


def test_digits_move_on_and_stay_in_the_field():
    digits = example("moving_digits")
    image = np.ones((1, 8, 8), "float32")
    films = digits.films(image, 20, np.random.default_rng(1))
    assert films.shape == (20, digits.FRAMES + 1, digits.FIELD, digits.FIELD, 1)
    np.testing.assert_array_equal(films.sum((2, 3, 4)), 64)  # the whole digit in every frame
    steps = np.abs(np.diff(films, axis=1)).sum((2, 3, 4))
    assert (steps > 0).all()
    half = digits.lower_half(films[0, 0, ..., 0])
    assert half.sum() == 32
