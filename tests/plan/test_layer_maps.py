"""Maps of layers: which layer is found where none is named."""

import keras

import probegen as pg


def test_grad_cam_finds_recurrent_maps():
    x = keras.Input((3, 7, 6, 2), name="x")
    y = keras.layers.ConvLSTM2D(3, 3, name="maps")(x)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(y)))
    assert pg.instrument(model, pg.GradCAM()).manifest.explanations[0].name == "grad_cam/maps"


def test_grad_cam_passes_over_the_scores_themselves():
    """Of a segmentation a map of what is predicted says nothing; of one layer there is no other."""
    x = keras.Input((6, 5, 3), name="x")
    y = keras.layers.Conv2D(4, 3, name="features")(x)
    y = keras.layers.Conv2D(2, 1, name="scores")(y)
    larger = keras.layers.UpSampling2D(2, interpolation="bilinear", name="larger")(y)
    for output in (larger, keras.layers.Softmax(name="classes")(larger)):
        (found,) = pg.instrument(keras.Model(x, output), pg.GradCAM()).manifest.explanations
        assert found.layer == "features"
    alone = keras.Model(x, keras.layers.Conv2D(2, 1, name="scores")(x))
    assert pg.instrument(alone, pg.GradCAM()).manifest.explanations[0].layer == "scores"
