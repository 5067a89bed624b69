"""Rows of convolutions, pooling, products, images, signals, loops and what is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sweep.tensorflow_ops.row import BATCH, FIXED, OPEN, Row
from sweep.tensorflow_ops.samples import floats, normal, whole

_raw = tf.raw_ops


def rows() -> Iterator[Row]:
    """Yields the rows."""
    yield from _convolutions()
    yield from _pools()
    yield from _products()
    yield from _images()
    yield from _signals()
    yield from _loops()
    yield from _algebra()
    yield from _losses()


def _draw(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def _convolutions() -> Iterator[Row]:
    image, series, volume = normal((2, 7, 9, 3)), normal((2, 9, 3)), normal((2, 5, 6, 7, 2))
    kernel, deep = _draw(3, 2, 3, 4), _draw(3, 2, 3, 2)
    for pad in ("SAME", "VALID"):
        for step in (1, 2):
            for rate in (1, 2):
                if step == 1 or rate == 1:
                    case = f"{pad.lower()}, stride {step}, dilation {rate}"
                    yield Row(
                        "Conv2D",
                        case,
                        lambda x, p=pad, s=step, r=rate: tf.nn.conv2d(x, kernel, s, p, dilations=r),
                        image,
                    )
                    yield Row(
                        "Conv3D",
                        case,
                        lambda x, p=pad, s=step, r=rate: tf.nn.conv3d(
                            x, _draw(2, 3, 2, 2, 3), [1, s, s, s, 1], p, dilations=[1, r, r, r, 1]
                        ),
                        volume,
                    )
                    yield Row(
                        "Conv2D",
                        f"one axis, {case}",
                        lambda x, p=pad, s=step, r=rate: tf.nn.conv1d(
                            x, _draw(3, 3, 4), s, p, dilations=r
                        ),
                        series,
                    )
            yield Row(
                "DepthwiseConv2dNative",
                f"{pad.lower()}, stride {step}",
                lambda x, p=pad, s=step: tf.nn.depthwise_conv2d(x, deep, [1, s, s, 1], p),
                image,
            )
            size = (
                [2, 7 * step, 9 * step, 4] if pad == "SAME" else [2, 6 * step + 3, 8 * step + 2, 4]
            )
            yield Row(
                "Conv2DBackpropInput",
                f"{pad.lower()}, stride {step}",
                lambda x, p=pad, s=step, n=size: tf.nn.conv2d_transpose(
                    x, _draw(3, 2, 4, 3), n, s, p
                ),
                image,
                forms=(FIXED,),
            )
        yield Row(
            "DepthwiseConv2dNative",
            f"{pad.lower()}, dilation 2",
            lambda x, p=pad: tf.nn.depthwise_conv2d(x, deep, [1, 1, 1, 1], p, dilations=[2, 2]),
            image,
        )
        yield Row(
            "Conv2DBackpropInput",
            f"{pad.lower()}, keras",
            lambda x, p=pad: keras.ops.conv_transpose(x, _draw(3, 3, 4, 3), 2, p.lower()),
            image,
        )
        yield Row(
            "Conv3DBackpropInputV2",
            f"{pad.lower()}, keras",
            lambda x, p=pad: keras.ops.conv_transpose(x, _draw(2, 2, 2, 3, 2), 2, p.lower()),
            volume,
            forms=(FIXED, BATCH),
        )
    yield Row(
        "Conv2D",
        "explicit padding",
        lambda x: tf.nn.conv2d(x, kernel, 1, [[0, 0], [1, 2], [0, 1], [0, 0]]),
        image,
    )
    yield Row(
        "Conv2D",
        "groups",
        lambda x: tf.nn.conv2d(x, _draw(3, 2, 1, 6), 1, "SAME"),
        image,
        forms=(FIXED, BATCH),
    )
    yield Row(
        "Conv2D",
        "a computed kernel",
        lambda x: tf.nn.conv2d(
            x, tf.reduce_mean(x, 0)[:3, :2, :, None] * _draw(1, 1, 1, 4), 1, "SAME"
        ),
        image,
    )
    yield Row("Conv2D", "one row high", lambda x: tf.nn.conv2d(x[:, :1], kernel, 1, "SAME"), image)
    yield Row(
        "Conv2D",
        "one channel",
        lambda x: tf.nn.conv2d(x[..., :1], kernel[:, :, :1], 1, "SAME"),
        image,
    )
    yield Row(
        "Conv2D",
        "bias",
        lambda x: tf.nn.bias_add(tf.nn.conv2d(x, kernel, 2, "SAME"), [1.0, 2, 3, 4]),
        image,
    )
    yield Row(
        "Conv2D",
        "padded before",
        lambda x: tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]]), kernel, 1, "VALID"),
        image,
    )
    yield Row("BiasAdd", "", lambda x: tf.nn.bias_add(x, [1.0, 2, 3]), image)
    yield Row(
        "BiasAdd",
        "channels first",
        lambda x: tf.nn.bias_add(x, tf.range(7.0), data_format="NCHW"),
        image,
    )
    yield Row("BiasAdd", "integers", lambda x: tf.nn.bias_add(x, [1, 2, 3, 4, 5]), whole())
    yield Row("BiasAddV1", "", lambda x: _raw.BiasAddV1(value=x, bias=[1.0, 2, 3]), image)
    yield Row(
        "Dilation2D",
        "",
        lambda x: tf.nn.dilation2d(x, _draw(3, 2, 3), [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]),
        image,
    )
    for version in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
        given: dict[str, Any] = {
            "scale": [1.0, 2, 0],
            "offset": [0.5, 0, -1],
            "mean": [0.1, 0, 2],
            "variance": [1.0, 0, 4],
        }
        yield Row(
            version,
            "",
            lambda x, v=version, g=given: getattr(_raw, v)(
                x=x, is_training=False, epsilon=1e-3, **g
            )[0],
            image,
        )
    yield Row(
        "FusedBatchNormV3",
        "training",
        lambda x: _raw.FusedBatchNormV3(
            x=x,
            scale=[1.0, 2, 0],
            offset=[0.5, 0, -1],
            mean=[0.0] * 3,
            variance=[1.0] * 3,
            is_training=True,
        )[0],
        image,
    )
    yield Row(
        "Rsqrt",
        "batch_normalization",
        lambda x: tf.nn.batch_normalization(
            x,
            tf.constant([0.1, 0, 2]),
            tf.constant([1.0, 0, 4]),
            None,
            tf.constant([1.0, 2, 3]),
            1e-3,
        ),
        image,
    )
    yield Row("LRN", "", lambda x: tf.nn.local_response_normalization(x, 1, 1.5, 0.3, 0.6), image)
    yield Row("LRN", "defaults", tf.nn.local_response_normalization, normal((2, 3, 4, 13)))
    normed = {
        "rows": (
            np.array(
                [[1.0, 2, 3, 4], [0, 0, 0, 0], [1e4, 1e4, 1e4, 1e4 + 1], [-1, 5, 2, 0]], np.float32
            )[:, None],
        )
    }
    yield Row("SquaredDifference", "layer norm", lambda x: _layer_norm(x), normed)
    for at in ("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars"):
        yield Row(
            at,
            "",
            lambda x, a=at: getattr(
                tf.quantization,
                {"FakeQuantWithMinMaxArgs": "fake_quant_with_min_max_args"}.get(
                    a, "fake_quant_with_min_max_vars"
                ),
            )(x, -6.0, 6.0),
            floats(wild=False),
        )
    yield Row(
        "FakeQuantWithMinMaxArgs",
        "narrow, uneven",
        lambda x: tf.quantization.fake_quant_with_min_max_args(
            x, -1.0, 2.0, num_bits=4, narrow_range=True
        ),
        floats(wild=False),
    )
    yield Row(
        "QuantizeAndDequantizeV4",
        "",
        lambda x: tf.quantization.quantize_and_dequantize_v2(x, -6.0, 6.0, range_given=True),
        floats(wild=False),
    )


def _layer_norm(x: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.raw_ops.Add(
        x=(x - mean) * tf.math.rsqrt(variance + 1e-3) * [1.0, 2, 3, 4], y=[0.5, 0, 1, 2]
    )


def _pools() -> Iterator[Row]:
    image, volume = normal((2, 7, 9, 3)), normal((2, 5, 6, 7, 2))
    negative = {"negative": (-np.abs(image["drawn"][0]) - 1,)}
    for pad in ("SAME", "VALID"):
        for size, step in ((2, 2), (3, 2), (3, 1), (2, 3)):
            case = f"{pad.lower()}, {size} by {step}"
            yield Row(
                "MaxPool",
                case,
                lambda x, p=pad, n=size, s=step: tf.nn.max_pool2d(x, n, s, p),
                negative,
            )
            yield Row(
                "AvgPool",
                case,
                lambda x, p=pad, n=size, s=step: tf.nn.avg_pool2d(x, n, s, p),
                image,
            )
            yield Row(
                "MaxPool3D",
                case,
                lambda x, p=pad, n=size, s=step: tf.nn.max_pool3d(x, n, s, p),
                volume,
            )
            yield Row(
                "AvgPool3D",
                case,
                lambda x, p=pad, n=size, s=step: tf.nn.avg_pool3d(x, n, s, p),
                volume,
            )
        yield Row(
            "MaxPoolV2",
            pad.lower(),
            lambda x, p=pad: _raw.MaxPoolV2(
                input=x, ksize=[1, 2, 3, 1], strides=[1, 2, 1, 1], padding=p
            ),
            negative,
        )
        yield Row(
            "MaxPoolWithArgmax",
            pad.lower(),
            lambda x, p=pad: tf.nn.max_pool_with_argmax(x, 2, 2, p),
            image,
        )
    yield Row("MaxPool", "of a row", lambda x: tf.nn.max_pool1d(x, 2, 2, "SAME"), normal((2, 7, 3)))
    yield Row("AvgPool", "of a row", lambda x: tf.nn.avg_pool1d(x, 3, 2, "SAME"), normal((2, 7, 3)))
    yield Row(
        "MaxPool",
        "integers",
        lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
        {"i": ((image["drawn"][0] * 9).astype(np.int32),)},
    )
    yield Row(
        "FractionalMaxPool",
        "",
        lambda x: (
            _raw.FractionalMaxPool(
                value=x, pooling_ratio=[1.0, 1.5, 1.5, 1.0], deterministic=True, seed=3, seed2=4
            ).output
        ),
        image,
    )


_EQUATIONS = (
    *("abc,abd->acd", "abc,cd->abd", "abc,abc->a", "abc->cab", "abc,abd->abcd", "abc->b"),
    *("aBc,aBc->aB", "...c,cd->...d"),
)


def _einsum(equation: str) -> Any:
    """Returns the product of the input with a matrix, with itself, or of the input alone."""
    given = equation.partition("->")[0]

    def function(x: Any) -> Any:
        others = [] if "," not in given else [_draw(5, 6)] if "cd" in given else [x]
        return tf.einsum(equation, x, *others)

    return function


def _products() -> Iterator[Row]:
    a, b = normal((4, 5)), normal((3, 4, 5))
    for t in (False, True):
        for u in (False, True):
            case = f"transposed {t}, {u}"
            yield Row(
                "MatMul",
                case,
                lambda x, t=t, u=u, n=4 if t else 5: tf.matmul(
                    x, _draw(n, n), transpose_a=t, transpose_b=u
                ),
                a,
                forms=(FIXED,),
            )
            yield Row(
                "BatchMatMulV2",
                case,
                lambda x, t=t, u=u: tf.matmul(
                    x, x if t != u else tf.transpose(x, [0, 2, 1]), transpose_a=t, transpose_b=u
                ),
                b,
            )
    yield Row("BatchMatMulV2", "broadcast", lambda x: tf.matmul(x, _draw(2, 1, 5, 6)), b)
    yield Row("BatchMatMul", "", lambda x: _raw.BatchMatMul(x=x, y=x, adj_y=True), b)
    yield Row(
        "BatchMatMulV3", "", lambda x: _raw.BatchMatMulV3(x=x, y=x, adj_y=True, Tout=tf.float32), b
    )
    yield Row("MatMul", "integers", lambda x: tf.matmul(x, tf.transpose(x)), whole())
    yield Row(
        "MatMul",
        "float64",
        lambda x: tf.matmul(x, tf.transpose(x)),
        normal((3, 4), dtype=np.float64),
    )
    yield Row(
        "MatMul",
        "float16",
        lambda x: tf.matmul(x, tf.transpose(x)),
        normal((3, 4), dtype=np.float16),
        limit=2e-2,
    )
    yield Row("MatMul", "infinite", lambda x: tf.matmul(x, tf.ones((5, 2))), floats())
    for equation in _EQUATIONS:
        yield Row("Einsum", equation, _einsum(equation), b)
    yield Row("MatMul", "tensordot", lambda x: tf.tensordot(x, _draw(5, 6), [[2], [0]]), b)
    yield Row("MatMul", "keras.ops.dot", lambda x: keras.ops.dot(x, _draw(5, 6)), b)


_METHODS = {
    "bilinear": "ResizeBilinear",
    "nearest": "ResizeNearestNeighbor",
    "bicubic": "ResizeBicubic",
    "area": "ResizeArea",
    **dict.fromkeys(("lanczos3", "lanczos5", "gaussian", "mitchellcubic"), "ScaleAndTranslate"),
}


def _images() -> Iterator[Row]:
    image = normal((2, 6, 8, 3))
    bright = {"bright": (np.random.default_rng(1).uniform(0, 1, (2, 6, 8, 3)).astype(np.float32),)}
    for method, op in _METHODS.items():
        for size in ((12, 16), (9, 5), (3, 4)):
            case = f"{method}, to {size[0]} by {size[1]}"
            yield Row(op, case, lambda x, m=method, n=size: tf.image.resize(x, n, m), image)
        case, factor = f"{method}, by a factor", lambda x: tf.shape(x)[1:3] * 2
        yield Row(op, case, lambda x, m=method, f=factor: tf.image.resize(x, f(x), m), image)
        if method not in ("nearest", "area"):
            yield Row(
                "ScaleAndTranslate",
                f"{method}, antialiased",
                lambda x, m=method: tf.image.resize(x, (4, 5), m, antialias=True),
                image,
            )
    for op in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"):
        for corners, half in ((True, False), (False, False), (False, True)):
            yield Row(
                op,
                f"corners {corners}, half pixels {half}",
                lambda x, o=op, c=corners, h=half: getattr(_raw, o)(
                    images=x, size=[9, 5], align_corners=c, half_pixel_centers=h
                ),
                image,
            )
    yield Row(
        "ResizeBilinear",
        "by a computed size",
        lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2),
        image,
    )
    yield Row(
        "ResizeBilinear",
        "uint8",
        lambda x: tf.image.resize(x, (9, 5)),
        {"u": ((bright["bright"][0] * 255).astype(np.uint8),)},
    )
    yield Row(
        "ResizeArea", "by a whole factor", lambda x: tf.image.resize(x, (3, 4), "area"), image
    )
    for pad in ("VALID", "SAME"):
        for side, step, rate in ((2, 2, 1), (3, 1, 1), (3, 2, 1), (2, 1, 2)):
            yield Row(
                "ExtractImagePatches",
                f"{pad.lower()}, {side} by {step}, rate {rate}",
                lambda x, p=pad, n=side, s=step, r=rate: tf.image.extract_patches(
                    x, [1, n, n, 1], [1, s, s, 1], [1, r, r, 1], p
                ),
                image,
            )
    yield Row(
        "Conv2D",
        "keras.ops.image.extract_patches",
        lambda x: keras.ops.image.extract_patches(x, (2, 3), padding="valid"),
        image,
        forms=(FIXED, BATCH),
    )
    yield Row(
        "ExtractImagePatches",
        "integers",
        lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
        {"i": ((image["drawn"][0] * 9).astype(np.int32),)},
    )
    yield Row(
        "ExtractImagePatches",
        "infinite",
        lambda x: tf.image.extract_patches(
            x[:, :, :, None], [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID"
        ),
        {k: (v[0][None],) for k, v in floats().items()},
    )
    yield Row(
        "ExtractVolumePatches",
        "",
        lambda x: tf.extract_volume_patches(x, [1, 2, 2, 2, 1], [1, 2, 2, 2, 1], "VALID"),
        normal((2, 4, 5, 6, 2)),
    )
    yield Row(
        "CropAndResize",
        "",
        lambda x: tf.image.crop_and_resize(
            x, [[0.1, 0.2, 0.8, 0.9], [0.0, 0, 1, 1]], [0, 1], [4, 5]
        ),
        image,
        forms=(FIXED,),
    )
    yield Row("AdjustContrastv2", "", lambda x: tf.image.adjust_contrast(x, 1.7), bright)
    yield Row("AdjustSaturation", "", lambda x: tf.image.adjust_saturation(x, 1.7), bright)
    yield Row("AdjustHue", "", lambda x: tf.image.adjust_hue(x, 0.2), bright)
    yield Row("RGBToHSV", "", tf.image.rgb_to_hsv, bright)
    yield Row("HSVToRGB", "", tf.image.hsv_to_rgb, bright)
    yield Row("MatMul", "grey", tf.image.rgb_to_grayscale, bright)
    yield Row(
        "MatMul", "grey, keras", keras.ops.image.rgb_to_grayscale, bright, forms=(FIXED, BATCH)
    )
    yield Row("DepthwiseConv2dNative", "sobel", tf.image.sobel_edges, image)
    yield Row(
        "ImageProjectiveTransformV3",
        "",
        lambda x: keras.ops.image.affine_transform(
            x, np.tile(np.array([1, 0.1, 0.5, 0, 1, 0.2, 0, 0], np.float32), (2, 1))
        ),
        image,
        forms=(FIXED,),
    )
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.9, 0.9], [0.5, 0.5, 1, 1]], np.float32)
    scores = {"scores": (np.array([0.6, 0.9, 0.3], np.float32),)}
    yield Row(
        "NonMaxSuppressionV3",
        "",
        lambda s: tf.image.non_max_suppression(boxes, s, 2, 0.5),
        scores,
        forms=(FIXED,),
    )
    for version in (2, 3):
        given: dict[str, Any] = {"score_threshold": 0.0} if version == 3 else {}
        yield Row(
            f"NonMaxSuppressionV{version}",
            "raw",
            lambda s, v=version, g=given: getattr(_raw, f"NonMaxSuppressionV{v}")(
                boxes=boxes, scores=s, max_output_size=3, iou_threshold=0.5, **g
            ),
            scores,
            forms=(FIXED,),
        )
    yield Row(
        "NonMaxSuppressionV4",
        "",
        lambda s: _raw.NonMaxSuppressionV4(
            boxes=boxes,
            scores=s,
            max_output_size=3,
            iou_threshold=0.5,
            score_threshold=0.0,
            pad_to_max_output_size=True,
        ),
        scores,
        forms=(FIXED,),
    )
    yield Row(
        "NonMaxSuppressionV5",
        "",
        lambda s: tf.image.non_max_suppression_with_scores(boxes, s, 3, 0.5),
        scores,
        forms=(FIXED,),
    )
    yield Row(
        "CombinedNonMaxSuppression",
        "",
        lambda s: tf.image.combined_non_max_suppression(
            boxes[None, :, None], s[None, :, None], 3, 3, 0.5, 0.1
        ),
        scores,
        forms=(FIXED,),
    )


def _signals() -> Iterator[Row]:
    sound = normal((2, 40))
    yield Row("RFFT", "its size", lambda x: tf.abs(tf.signal.rfft(x)), sound)
    yield Row(
        "RFFT",
        "its parts",
        lambda x: (tf.math.real(tf.signal.rfft(x)), tf.math.imag(tf.signal.rfft(x))),
        sound,
    )
    yield Row("RFFT", "padded", lambda x: tf.abs(tf.signal.rfft(x, [64])), sound)
    yield Row("RFFT", "cut", lambda x: tf.abs(tf.signal.rfft(x, [16])), sound)
    yield Row("RFFT", "angle", lambda x: tf.math.angle(tf.signal.rfft(x)[:, 1:-1]), sound)
    yield Row(
        "RFFT",
        "its square",
        lambda x: tf.math.real(tf.signal.rfft(x) * tf.math.conj(tf.signal.rfft(x))),
        sound,
    )
    yield Row("RFFT", "stft", lambda x: tf.abs(tf.signal.stft(x, 16, 8)), sound)
    yield Row(
        "RFFT",
        "stft, padded end",
        lambda x: tf.abs(tf.signal.stft(x, 16, 6, 20, pad_end=True)),
        sound,
    )
    yield Row("RFFT", "keras.ops.stft", lambda x: keras.ops.stft(x, 16, 8, 16), sound)
    yield Row("RFFT", "keras.ops.rfft", lambda x: keras.ops.rfft(x), sound)
    yield Row("IRFFT", "there and back", lambda x: tf.signal.irfft(tf.signal.rfft(x)), sound)
    yield Row("FFT", "its size", lambda x: tf.abs(tf.signal.fft(tf.cast(x, tf.complex64))), sound)
    yield Row("FFT", "keras.ops.fft", lambda x: keras.ops.fft((x, x * 2)), sound)
    yield Row(
        "FFT",
        "FNet",
        lambda x: tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64))),
        sound,
    )
    yield Row(
        "FFT2D",
        "FNet",
        lambda x: tf.math.real(tf.signal.fft2d(tf.cast(x, tf.complex64))),
        normal((2, 5, 6)),
    )
    yield Row("FFT2D", "keras.ops.fft2", lambda x: keras.ops.fft2((x, x * 2)), normal((2, 5, 6)))
    yield Row("FFT2D", "keras.ops.ifft2", lambda x: keras.ops.ifft2((x, x * 2)), normal((2, 5, 6)))
    for op, f in (("IFFT", tf.signal.ifft), ("IFFT2D", tf.signal.ifft2d)):
        yield Row(op, "", lambda x, f=f: _both(f(tf.complex(x, x * x))), normal((2, 5, 6)))
    yield Row("IRFFT", "odd", lambda x: tf.signal.irfft(tf.complex(x, x * x), [7]), normal((2, 4)))
    yield Row(
        "IRFFT2D",
        "",
        lambda x: tf.signal.irfft2d(tf.signal.rfft2d(x)),
        normal((2, 5, 6)),
        limit=1e-4,
    )
    yield Row("RFFT2D", "", lambda x: _both(tf.signal.rfft2d(x)), normal((2, 5, 6)))
    yield Row("Real", "", lambda x: tf.math.real(tf.exp(tf.complex(x, x))), sound)
    yield Row("Imag", "", lambda x: tf.math.imag(tf.complex(x, x) / tf.complex(x, 1 + x)), sound)
    yield Row("Conj", "", lambda x: _both(tf.math.conj(tf.complex(x, x))), sound)
    yield Row(
        "Complex",
        "moved",
        lambda x: _both(tf.concat([tf.transpose(tf.complex(x, -x))[::-1, None]] * 2, 1)),
        sound,
    )
    yield Row("RFFT3D", "", lambda x: tf.abs(tf.signal.rfft3d(x)), normal((4, 4, 6)))
    yield Row("RFFT2D", "its size", lambda x: tf.abs(tf.signal.rfft2d(x)), normal((2, 5, 6)))
    yield Row(
        "Conv2D",
        "keras STFTSpectrogram",
        keras.layers.STFTSpectrogram(frame_length=16, frame_step=8),
        normal((2, 40, 1)),
    )
    yield Row(
        "RFFT",
        "keras MelSpectrogram",
        keras.layers.MelSpectrogram(
            fft_length=32, sequence_stride=8, sequence_length=32, num_mel_bins=5, max_freq=8000
        ),
        sound,
    )
    yield Row("ComplexAbs", "", lambda x: tf.abs(tf.complex(x, x * 2)), sound)
    yield Row("Angle", "", lambda x: tf.math.angle(tf.complex(x, x * 2)), sound)
    yield Row(
        "Complex",
        "a product",
        lambda x: tf.math.imag(tf.complex(x, x * 2) * tf.complex(x, -x)),
        sound,
    )


def _both(x: Any) -> Any:
    return tf.math.real(x), tf.math.imag(x)


def _loops() -> Iterator[Row]:
    x = normal((3, 4))
    yield Row(
        "StatelessIf",
        "of the input",
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1),
        {**x, "other": (-x["drawn"][0],)},
        forms=FORMS_OF_LOOPS,
    )
    yield Row(
        "StatelessIf",
        "nested",
        lambda x: tf.cond(
            tf.reduce_sum(x) > 0, lambda: tf.cond(x[0, 0] > 0, lambda: x, lambda: -x), lambda: x - 1
        ),
        {**x, "other": (-x["drawn"][0],)},
        forms=FORMS_OF_LOOPS,
    )
    yield Row(
        "StatelessCase",
        "",
        lambda x: tf.switch_case(tf.cast(x[0, 0] > 0, tf.int32), [lambda: x, lambda: x * 2]),
        x,
    )
    yield Row(
        "StatelessWhile",
        "counted",
        lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 1.5), (0, x))[1],
        x,
    )
    yield Row(
        "StatelessWhile",
        "until",
        lambda x: tf.while_loop(lambda y: tf.reduce_max(tf.abs(y)) < 9, lambda y: (y * 2,), (x,)),
        x,
    )
    yield Row("StatelessWhile", "over time", _scanned, x)
    yield Row("StatelessWhile", "map_fn", lambda x: tf.map_fn(lambda v: v * tf.reduce_sum(v), x), x)
    yield Row("StatelessWhile", "tf.scan", lambda x: tf.scan(lambda a, v: a * 0.5 + v, x), x)
    yield Row(
        "StatelessWhile",
        "keras.ops.scan",
        lambda x: keras.ops.scan(lambda c, v: (c + v, c * v), x[0], x),
        x,
    )
    yield Row(
        "StatelessWhile",
        "keras.ops.fori_loop",
        lambda x: keras.ops.fori_loop(0, 3, lambda i, y: y * 2 + keras.ops.cast(i, "float32"), x),
        x,
    )
    yield Row("Mul", "vectorized_map", lambda x: tf.vectorized_map(lambda v: v * 2, x), x)
    yield Row("TensorListStack", "", _unrolled, x)


FORMS_OF_LOOPS = (FIXED, BATCH, OPEN)


def _scanned(x: Any) -> Any:
    steps = tf.TensorArray(tf.float32, tf.shape(x)[1])

    def body(i: Any, total: Any, found: Any) -> Any:
        total = total * 0.5 + x[:, i]
        return i + 1, total, found.write(i, total)

    return tf.while_loop(lambda i, *_: i < tf.shape(x)[1], body, (0, x[:, 0] * 0, steps))[2].stack()


def _unrolled(x: Any) -> Any:
    found = tf.TensorArray(tf.float32, 3)
    for i in range(3):
        found = found.write(i, x * float(i))
    return found.stack()


def _algebra() -> Iterator[Row]:
    square = {
        "s": (_draw(2, 3, 3) @ np.swapaxes(_draw(2, 3, 3), 1, 2) + np.eye(3, dtype=np.float32),)
    }
    yield Row("MatrixDeterminant", "", tf.linalg.det, square)
    for op, f in {
        "MatrixInverse": tf.linalg.inv,
        "Cholesky": tf.linalg.cholesky,
        "Qr": tf.linalg.qr,
        "Svd": lambda x: tf.linalg.svd(x, compute_uv=False),
        "SelfAdjointEigV2": tf.linalg.eigvalsh,
        "Eig": tf.linalg.eigvals,
        "Lu": tf.linalg.lu,
        "LogMatrixDeterminant": tf.linalg.slogdet,
        "MatrixSolve": lambda x: tf.linalg.solve(x, x[..., :1]),
        "MatrixTriangularSolve": lambda x: tf.linalg.triangular_solve(x, x[..., :1]),
        "MatrixExponential": tf.linalg.expm,
        "MatrixSquareRoot": tf.linalg.sqrtm,
        "MatrixLogarithm": lambda x: tf.math.real(tf.linalg.logm(tf.cast(x, tf.complex64))),
    }.items():
        name = {"MatrixExponential": "MatrixSolve"}.get(op, op)
        yield Row(name, "expm" if name != op else "", f, square)


def _losses() -> Iterator[Row]:
    x = normal((4, 5))
    labels = tf.constant([0, 4, 2, 2])
    yield Row(
        "SparseSoftmaxCrossEntropyWithLogits",
        "",
        lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x),
        x,
        forms=(FIXED,),
    )
    yield Row(
        "SoftmaxCrossEntropyWithLogits",
        "",
        lambda x: tf.nn.softmax_cross_entropy_with_logits(tf.one_hot(labels, 5), x),
        x,
        forms=(FIXED,),
    )
    yield Row("L2Loss", "", tf.nn.l2_loss, x)
    time = normal((7, 2, 5))
    yield Row(
        "CTCGreedyDecoder",
        "",
        lambda x: tf.nn.ctc_greedy_decoder(x, [7, 5])[0][0].values,
        time,
        forms=(FIXED,),
    )
    yield Row(
        "CTCBeamSearchDecoder",
        "",
        lambda x: tf.nn.ctc_beam_search_decoder(x, [7, 5])[0][0].values,
        time,
        forms=(FIXED,),
    )
    for op in (
        "RandomUniform",
        "RandomStandardNormal",
        "RandomUniformInt",
        "Multinomial",
        "RandomShuffle",
    ):
        yield Row(op, "", _RANDOM[op], x)
    yield Row(
        "StatelessRandomUniformV2",
        "",
        lambda x: tf.random.stateless_uniform(tf.shape(x), [1, 2]),
        x,
    )
    yield Row("AsString", "", tf.strings.as_string, whole())
    yield Row(
        "StringToHashBucketFast",
        "",
        lambda x: tf.strings.to_hash_bucket_fast(tf.strings.as_string(x), 7),
        whole(),
    )
    yield Row(
        "StringToHashBucketStrong",
        "",
        lambda x: tf.strings.to_hash_bucket_strong(tf.strings.as_string(x), 7, [3, 2**40]),
        whole(),
    )
    yield Row(
        "StringToNumber",
        "",
        lambda x: tf.strings.to_number(x),
        {"s": (np.array([["1.5", "-2"], ["3", "0"]], object),)},
    )
    yield Row(
        "StringLower", "", tf.strings.lower, {"s": (np.array([["Ab", "C"], ["d", ""]], object),)}
    )
    yield Row(
        "StringUpper", "", tf.strings.upper, {"s": (np.array([["Ab", "C"], ["d", ""]], object),)}
    )
    yield Row(
        "SparseToDense",
        "",
        lambda x: tf.sparse.to_dense(tf.sparse.from_dense(x)),
        {"s": (np.array([[0, 1.5, 0], [2, 0, 0]], np.float32),)},
    )
    yield Row(
        "SparseReshape",
        "",
        lambda x: tf.sparse.to_dense(tf.sparse.reshape(tf.sparse.from_dense(x), [3, 2])),
        {"s": (np.array([[0, 1.5, 0], [2, 0, 0]], np.float32),)},
        forms=(FIXED,),
    )
    yield Row(
        "SparseFillEmptyRows",
        "",
        lambda x: tf.sparse.to_dense(tf.sparse.fill_empty_rows(tf.sparse.from_dense(x), 9.0)[0]),
        {"s": (np.array([[0, 1.5, 0], [0, 0, 0]], np.float32),)},
        forms=(FIXED,),
    )
    yield Row(
        "SparseTensorDenseMatMul",
        "",
        lambda x: tf.sparse.sparse_dense_matmul(tf.sparse.from_dense(x), _draw(3, 2)),
        {"s": (np.array([[0, 1.5, 0], [0, 0, 0]], np.float32),)},
    )
    yield Row(
        "DenseToDenseSetOperation",
        "",
        lambda x: tf.sets.intersection(x[:, :3], x[:, 2:]).values,
        whole(),
    )
    yield Row(
        "RaggedTensorToTensor",
        "",
        lambda x: tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1]), [1, 4, 0, 15]).to_tensor(),
        whole(),
        forms=(FIXED,),
    )
    yield Row(
        "RaggedTensorToSparse",
        "",
        lambda x: (
            tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1]), [1, 4, 0, 15]).to_sparse().values
        ),
        whole(),
        forms=(FIXED,),
    )
    yield Row(
        "RaggedRange", "", lambda x: tf.ragged.range(x[:, 0] % 4).values, whole(), forms=(FIXED,)
    )
    yield Row(
        "RaggedGather",
        "",
        lambda x: (
            tf.gather(
                tf.RaggedTensor.from_row_lengths(tf.reshape(x, [-1]), [1, 4, 0, 15]), [1, 0]
            ).values
        ),
        whole(),
        forms=(FIXED,),
    )


_RANDOM = {
    "RandomUniform": lambda x: tf.random.uniform(tf.shape(x)),
    "RandomStandardNormal": lambda x: tf.random.normal(tf.shape(x)),
    "RandomUniformInt": lambda x: tf.random.uniform(tf.shape(x), 0, 5, tf.int32),
    "Multinomial": lambda x: tf.random.categorical(x, 3),
    "RandomShuffle": tf.random.shuffle,
}
