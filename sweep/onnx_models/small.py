"""Small torch networks: recurrent, one- and three-dimensional, with branches and loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from sweep.onnx_models.case import Case
from sweep.onnx_models.torch_export import (
    BATCH,
    DYNAMO,
    SCRIPT,
    Input,
    Module,
    torch_case,
    variants,
)

_TIMES = {"batch": (2, 3), "time": (7, 11)}
_SERIES = (Input("series", ("batch", "time", 5)),)
_OPSETS = (11, 13, 17, 20, 21, 23)


def cases() -> Iterator[Case]:
    """Yields small networks that torch makes."""
    for kind in ("LSTM", "GRU", "RNN"):
        for directions in ("", ", both directions"):
            recurrent = Module(_recurrent(kind, bool(directions)), _SERIES, sizes=_TIMES)
            yield from variants(f"torch: {kind}{directions}", recurrent)
    stacked = Module(_recurrent("LSTM", True, layers=2), _SERIES, sizes=_TIMES)
    yield from variants("torch: LSTM, two layers, both directions", stacked)
    states = Module(
        _with_states,
        (*_SERIES, Input("h", (1, "batch", 6)), Input("c", (1, "batch", 6))),
        sizes=_TIMES,
        outputs=("logits", "h_out", "c_out"),
    )
    yield from variants("torch: LSTM, states in and out", states)
    first = Module(
        _time_first,
        (Input("series", ("time", "batch", 5)),),
        target=(4, 0, 3),
        sizes=_TIMES,
        batched=False,
    )
    yield from variants("torch: GRU, time before the batch", first)
    line = (Input("signal", ("batch", 3, 64)),)
    for name, make in (("1-D convolutions", _line), ("dilated 1-D convolutions", _dilated)):
        yield from variants(f"torch: {name}", Module(make, line, sizes=BATCH, probes=_CAM))
    volume = (Input("volume", ("batch", 2, 12, 14, 10)),)
    yield from variants(
        "torch: 3-D convolutions", Module(_volume, volume, sizes=BATCH, probes=_CAM)
    )
    image = (Input("image", ("batch", 3, 24, 20)),)
    for name, make in _IMAGES.items():
        yield from variants(f"torch: {name}", Module(make, image, sizes=BATCH, probes=_CAM))
    vector = (Input("x", ("batch", 6)),)
    for name, make in _VECTORS.items():
        yield from variants(f"torch: {name}", Module(make, vector, sizes=BATCH))
    sequence = (Input("x", ("batch", "time", 16)),)
    encoder = Module(_encoder, sequence, target=(4, 3), sizes=_TIMES, probes=("Attention",))
    yield torch_case("torch: TransformerEncoder, open time", encoder)
    # What TorchScript traces of nn.MultiheadAttention holds the time it was traced with.
    fixed = {"batch": (2, 3), "time": (7,)}
    encoder = dataclasses.replace(encoder, sizes=fixed)
    yield from variants("torch: TransformerEncoder", encoder)
    for opset in _OPSETS:
        exporter = SCRIPT if opset < 18 else DYNAMO
        yield torch_case(
            "torch: many operators",
            Module(_many, image, exporter=exporter, opset=opset, sizes=BATCH),
        )
        yield torch_case(
            "torch: TransformerEncoder",
            dataclasses.replace(encoder, exporter=exporter, opset=opset),
        )
    for name, make in _SCRIPTED.items():
        yield torch_case(
            f"torch: {name}",
            Module(make, _SERIES, exporter=SCRIPT, opset=17, sizes=_TIMES, script=True),
        )


_CAM = ("Saliency", "GradCAM")


def _recurrent(kind: str, both: bool, layers: int = 1) -> Callable[[], Any]:
    def make() -> Any:
        from torch import nn

        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = getattr(nn, kind)(5, 6, layers, batch_first=True, bidirectional=both)
                self.head = nn.Linear(12 if both else 6, 4)

            def forward(self, x: Any) -> Any:
                return self.head(self.cell(x)[0].mean(1))

        return Recurrent()

    return make


def _with_states() -> Any:
    from torch import nn

    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(5, 6, batch_first=True)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            y, (h, c) = self.cell(x, (h, c))
            return self.head(y[:, -1]), h, c

    return States()


def _time_first() -> Any:
    from torch import nn

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(5, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.cell(x)[0])

    return TimeFirst()


def _line() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv1d(3, 8, 5, stride=2, padding=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, padding="same", groups=4),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def _dilated() -> Any:
    from torch import nn

    class Dilated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.ModuleList(nn.Conv1d(3, 3, 3, dilation=2**i) for i in range(3))
            self.gates = nn.ModuleList(nn.Conv1d(3, 3, 3, dilation=2**i) for i in range(3))
            self.head = nn.Conv1d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            for i, (filters, gates) in enumerate(zip(self.filters, self.gates, strict=True)):
                padded = nn.functional.pad(x, (2 * 2**i, 0))
                x = x + filters(padded).tanh() * gates(padded).sigmoid()
            return self.head(x).mean(-1)

    return Dilated()


def _volume() -> Any:
    import torch
    from torch import nn

    found = nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(6, 6, 3, stride=2),
        nn.SiLU(),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    found(torch.zeros(2, 2, 12, 14, 10))  # settles the size of its head
    return found


def _unet() -> Any:
    import torch
    from torch import nn

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 8, 3, padding=1)
            self.low = nn.Conv2d(8, 8, 3, padding=1)
            self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
            self.join = nn.Conv2d(16, 4, 3, padding=1)
            self.norm = nn.GroupNorm(2, 8)

        def forward(self, x: Any) -> Any:
            high = self.down(x).relu()
            low = self.norm(self.low(nn.functional.max_pool2d(high, 2))).relu()
            return self.join(torch.cat([high, self.up(low)], 1)).mean((2, 3))

    return UNet()


def _norms() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate"),
        nn.GroupNorm(4, 8),
        nn.Hardswish(),
        nn.LPPool2d(2, 2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.LocalResponseNorm(3),
        nn.PReLU(8),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def _resizes() -> Any:
    from torch import nn

    class Resizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Conv2d(2, 4, 3)

        def forward(self, x: Any) -> Any:
            f = nn.functional
            x = f.interpolate(self.conv(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = f.interpolate(x, size=(30, 28), mode="bicubic", align_corners=True)
            x = f.pixel_shuffle(x, 2)
            x = f.interpolate(x, scale_factor=0.5, mode="nearest")
            return self.head(x).softmax(1).mean((2, 3))

    return Resizes()


def _sampled() -> Any:
    import torch
    from torch import nn

    class Sampled(nn.Module):
        """A spatial transformer: where it looks depends on what it sees."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.place = nn.Linear(4, 6)

        def forward(self, x: Any) -> Any:
            theta = self.place(self.conv(x).tanh().mean((2, 3))).reshape(-1, 2, 3)
            ys, xs = torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 9)
            grid = torch.stack([*torch.meshgrid(xs, ys, indexing="xy"), torch.ones(8, 9)], -1)
            grid = (grid.reshape(1, 72, 3) @ theta.transpose(1, 2)).reshape(-1, 8, 9, 2)
            seen = nn.functional.grid_sample(x, grid, align_corners=False)
            return self.conv(seen).mean((2, 3))

    return Sampled()


_IMAGES: dict[str, Callable[[], Any]] = {
    "U-Net": _unet,
    "norms and paddings": _norms,
    "resizes": _resizes,
    "spatial transformer": _sampled,
}


def _many() -> Any:
    import torch
    from torch import nn

    class Many(nn.Module):
        """Shapes, reductions and choices as people write them in torch."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            b, c, h, w = x.shape
            x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
            a, d = x.chunk(2, dim=1)
            x = torch.cat([a * d.sigmoid(), nn.functional.softplus(d)], 1)
            x = nn.functional.pad(x, (1, 2, 0, 1))[:, :, ::2, 1:-1]
            x = x + x.roll(1, -1) + x.flip(2)
            x = torch.where(x > 0.3, x, 0.1 * x).clamp(-2, 3)
            top = x.flatten(2).topk(5, -1).values.mean(-1)
            spread = x.std((2, 3)) + x.norm(dim=(2, 3)) / (h * w)
            soft = torch.logsumexp(x, (2, 3)) + x.amax((2, 3)) + x.cumsum(-1).mean((2, 3))
            weights = torch.einsum("bchw,bdhw->bcd", x, x).softmax(-1)
            return self.head(torch.bmm(weights, (top + spread + soft)[..., None])[..., 0])

    return Many()


def _mlp() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Linear(6, 16), nn.ELU(), nn.Linear(16, 16), nn.Mish(), nn.Linear(16, 4), nn.Softmax(-1)
    )


def _activations() -> Any:
    from torch import nn

    kinds: tuple[str, ...] = (
        "ELU",
        "SELU",
        "CELU",
        "GELU",
        "SiLU",
        "Mish",
        "Softplus",
        "Softsign",
        "Tanhshrink",
    )
    kinds += ("Hardtanh", "Hardsigmoid", "Hardswish", "LogSigmoid", "ReLU6", "Softshrink")
    kinds += ("Hardshrink", "Threshold", "GLU", "LogSoftmax")

    class Activations(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            arguments: dict[str, Any] = {"Threshold": (0.1, 0.2), "LogSoftmax": (-1,)}
            self.kinds = nn.ModuleList(getattr(nn, k)(*arguments.get(k, ())) for k in kinds)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Any) -> Any:
            found = [a(x).repeat(1, 6 // a(x).shape[1]) for a in self.kinds]
            return self.head(sum(found[1:], found[0]))

    return Activations()


def _experts() -> Any:
    import torch
    from torch import nn

    class Experts(nn.Module):
        """A soft mixture of experts, and the two best of them."""

        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 4) for _ in range(4))
            self.choose = nn.Linear(6, 4)

        def forward(self, x: Any) -> Any:
            weights, chosen = self.choose(x).softmax(-1).topk(2, -1)
            every = torch.stack([e(x) for e in self.experts], 1)
            best = every.gather(1, chosen[..., None].expand(-1, -1, 4))
            return (best * weights[..., None]).sum(1)

    return Experts()


_VECTORS: dict[str, Callable[[], Any]] = {
    "multi-layer perceptron": _mlp,
    "activations": _activations,
    "mixture of experts": _experts,
}


def _encoder() -> Any:
    from torch import nn

    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def _branch() -> Any:
    import torch
    from torch import nn

    class Branch(nn.Module):
        """Takes another way for series that are large on average."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(5, 4), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean(1)
            if bool(x.mean() > 0):  # noqa: SIM108 - as a statement, it becomes an If
                y = self.one(mean).tanh()
            else:
                y = self.other(mean)
            return y

    return Branch()


def _loop() -> Any:
    import torch
    from torch import nn

    class Loop(nn.Module):
        """A recurrent cell that is written by hand over an open number of steps."""

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(9, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.zeros(x.size(0), 4)
            for i in range(x.size(1)):
                h = torch.tanh(self.cell(torch.cat([x[:, i], h], 1)))
            return h

    return Loop()


def _while() -> Any:
    import torch
    from torch import nn

    class While(nn.Module):
        """Halves a series while a step is large, which is the same for all samples."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, step = x.mean(1), torch.ones(())
            while bool(step > 0.1):
                y, step = y * 0.5 + 0.1 * y.sin(), step * 0.5
            return self.head(y)

    return While()


_SCRIPTED: dict[str, Callable[[], Any]] = {
    "If of a script": _branch,
    "Loop of a script": _loop,
    "Loop of a script, to a condition": _while,
}
