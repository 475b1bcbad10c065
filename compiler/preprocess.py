"""From image files to what a model takes: preprocessing, recorded with the model.

`size=256,crop=224,mean=[104,117,123],std=[1,1,1],order=bgr` says it in text. The same description serves calibration,
`run` and `compare`; it travels in the file's input record. Images need Pillow (extra `images`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes a tensor: `(pixel * scale - mean) / std`, per channel, after resizing and cropping.

    size: shorter side after resizing, bilinear (0: as it is); crop: side of the centre crop (0: none); scale: 1.0
    leaves pixels at 0..255; order: channels as rgb, bgr or gray. mean and std are in scaled units.
    """

    size: int = 0
    crop: int = 0
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: str = "rgb"
    folded: Mapping[str, Any] | None = None
    """Of a compiled network that takes uint8: the scale, mean, std and order it has inside, and the `layout` of the
    network it was made from."""

    @staticmethod
    def parse(text: str) -> Preprocess:
        """From `key=value,…`; several numbers as `[1,2,3]` or `1:2:3`. Raises CompilerError with every fault."""
        values: dict[str, Any] = {}
        faults: list[Diagnostic] = []
        for item in _items(text):
            key, _, raw = item.partition("=")
            key = key.strip()
            if key not in _READERS:
                faults.append(
                    Diagnostic(code="E110", message=f"preprocessing has no {key!r}", help=did_you_mean(key, _READERS))
                )
                continue
            if key in values:
                faults.append(Diagnostic(code="E110", message=f"preprocessing: {key} is said twice"))
            try:
                values[key] = _READERS[key](raw.strip())
            except ValueError:
                faults.append(
                    Diagnostic(code="E110", message=f"preprocessing: {key} cannot be {raw.strip()!r}", help=_HELP[key])
                )
        if values.get("order") == "gray" and any(len(values.get(key, ())) == 3 for key in ("mean", "std")):
            message = "preprocessing: gray has one channel, so one mean and one std"
            faults.append(Diagnostic(code="E110", message=message))
        if faults:
            raise CompilerError(faults)
        return Preprocess(**values)

    @staticmethod
    def of(attributes: dict[str, Any]) -> Preprocess:
        """From what `as_dict` gave."""
        return Preprocess(**_with_tuples(attributes))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the offline model's input record."""
        plain = {
            "size": self.size, "crop": self.crop, "scale": self.scale, "mean": self.mean, "std": self.std,
            "order": self.order,
        }  # fmt: skip
        return plain | ({"folded": self.folded} if self.folded else {})

    def on_chip(self, order: str, layout: str) -> dict[str, Any]:
        """As `as_dict`, of a network that does the arithmetic itself and takes images in `order`; it was one of
        `layout`."""
        done = {"scale": self.scale, "mean": self.mean, "std": self.std, "order": self.order, "layout": layout}
        return Preprocess(size=self.size, crop=self.crop, order=order, folded=done).as_dict()

    @property
    def whole(self) -> Preprocess:
        """The preprocessing of the network that this one was made from."""
        if self.folded is None:
            return self
        inside = _with_tuples({k: v for k, v in self.folded.items() if k != "layout"})
        return Preprocess(size=self.size, crop=self.crop, **inside)

    def to_network(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels that a compiled network takes as what the network it was made from takes."""
        if self.folded is None:
            return pixels
        inside = self.whole
        turned = pixels[..., ::-1] if inside.order != self.order else pixels
        x = (turned.astype(np.float32) * np.float32(inside.scale) - np.asarray(inside.mean, np.float32)) / np.asarray(
            inside.std, np.float32
        )
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.folded["layout"] == "NCHW" else x, np.float32)

    def to_pixels(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `to_network`, to the nearest pixel."""
        if self.folded is None:
            return x
        inside = self.whole
        image = x.transpose(0, 2, 3, 1) if self.folded["layout"] == "NCHW" else x
        real = (image * np.asarray(inside.std, np.float64) + np.asarray(inside.mean, np.float64)) / inside.scale
        whole = np.clip(np.rint(real), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(whole[..., ::-1] if inside.order != self.order else whole)

    def __call__(self, pixels: np.ndarray, layout: str = "NCHW") -> np.ndarray:
        """uint8 [h, w, 3] (RGB) or [h, w] → float32 [1, c, h, w], or [1, h, w, c] for NHWC."""
        x = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
        if self.crop:
            top, left = (x.shape[0] - self.crop) // 2, (x.shape[1] - self.crop) // 2
            x = x[max(top, 0) : max(top, 0) + self.crop, max(left, 0) : max(left, 0) + self.crop]
        if self.order == "bgr":
            x = x[:, :, ::-1]
        elif self.order == "gray":
            x = (x if pixels.ndim == 3 else pixels[:, :, None]).mean(axis=2, keepdims=True)
        scaled = x.astype(np.float32) * np.float32(self.scale)
        y = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(y.transpose(2, 0, 1)[None] if layout == "NCHW" else y[None], np.float32)

    def read(self, path: Path, layout: str = "NCHW") -> np.ndarray:
        """An image file as a tensor. Raises CompilerError E111 without Pillow, E112 for a file that is no image."""
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError:
            raise error(
                "E111", "reading images needs Pillow", help="pip install 'mluc[images]', or give a .npz file"
            ) from None
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
                if self.size:
                    factor = self.size / min(rgb.size)
                    sides = (max(round(rgb.width * factor), 1), max(round(rgb.height * factor), 1))
                    rgb = rgb.resize(sides, Image.Resampling.BILINEAR)
                pixels = np.asarray(rgb)
        except UnidentifiedImageError:
            help = "take it out of the folder, or load it again"
            raise error("E112", "is no image, or a damaged one", where=str(path), help=help) from None
        except OSError as fault:
            raise error("E112", f"cannot read the image: {fault}", where=str(path)) from None
        return self(pixels, layout)


def _with_tuples(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in attributes.items()}


def _items(text: str) -> Iterator[str]:
    """Split at commas outside brackets."""
    depth, item = 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            yield item
            item = ""
        else:
            item += character
    if item.strip():
        yield item


def _numbers(text: str) -> tuple[float, ...]:
    """One number for all channels, or three."""
    numbers = tuple(float(p) for p in text.strip("[]").replace(":", ",").split(","))
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers


def _order(text: str) -> str:
    if text not in ("rgb", "bgr", "gray"):
        raise ValueError
    return text


def _size(text: str) -> int:
    if int(text) < 0:
        raise ValueError
    return int(text)


def _scale(text: str) -> float:
    if not math.isfinite(float(text)) or float(text) == 0.0:
        raise ValueError
    return float(text)


def _nonzero(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0.0 in numbers:
        raise ValueError
    return numbers


_READERS: dict[str, Callable[[str], Any]] = {
    "size": _size, "crop": _size, "scale": _scale, "mean": _numbers, "std": _nonzero, "order": _order,
}  # fmt: skip
_HELP = {
    "size": "a number of pixels", "crop": "a number of pixels",
    "scale": "a number other than 0, such as 0.00392157 for 1/255",
    "mean": "one number or three, such as [0.485,0.456,0.406]",
    "std": "one number or three, none zero, such as [0.229,0.224,0.225]",
    "order": "rgb, bgr or gray",
}  # fmt: skip
