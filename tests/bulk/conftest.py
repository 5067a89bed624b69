"""One artefact for all tests of bulk runs, and what it returns, sample by sample."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from tests.runtime.support import NAMES, save_zoo, zoo


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory):
    """A linear classifier of images with `target="input"`."""
    return save_zoo(tmp_path_factory.mktemp("bulk") / "zoo.onnx")


@pytest.fixture(scope="session")
def zoo_art(zoo_path):
    return runtime.load(zoo_path, threads=1)


@pytest.fixture(scope="session")
def fixed_art(tmp_path_factory):
    """The same classifier, four samples at a time."""
    import keras

    x = keras.Input(batch_shape=(4, 5, 7, 3), name="image")
    model = keras.Model(x, zoo()(x), name="four")
    path = tmp_path_factory.mktemp("bulk_fixed") / "four.onnx"
    pg.compile(model, pg.Saliency(), path, class_names=NAMES, verify=False, dynamic_batch=False)
    return runtime.load(path, threads=1)


@pytest.fixture
def same():
    """Compares what a bulk run wrote with each sample run by itself."""

    def compare(results, art, x, target=None):
        at = 0
        for records in results.read():
            assert records.start == at
            for row, name in enumerate(records.samples):
                assert records.errors[row] is None, name
                alone = art.run(x[at : at + 1], target=target)
                assert set(records.values) == set(alone)
                for output, record in alone.items():
                    found = records.values[output][row]
                    np.testing.assert_allclose(found, record.array[0], rtol=1e-5, atol=1e-6)
                    assert found.dtype == record.array.dtype
                at += 1
        assert at == len(x) == results.samples
        assert results.finished

    return compare
