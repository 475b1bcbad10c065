"""Train the network of `mluc demo`: handwritten digits, 8x8 pixels, from scikit-learn (1797 samples).

    pip install '.[torch]' scikit-learn
    python examples/train_digits.py compiler/demo

writes digits.onnx and digits.npz there. The samples are split once, by a fixed seed: 1297 to train on, 100 to calibrate
the quantisation on, 400 held back. It takes under a minute on a laptop; the numbers may differ in the last digits on
another machine or torch version. Needs torch 2.5 or later for its exporter.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

TRAINED, CALIBRATED = 1297, 100
EPOCHS = 40


class Digits(nn.Module):
    """Convolutions with batch-norm, a residual block, pooling of both kinds, and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.first, self.first_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.second_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.scores = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem_norm(self.stem(image)))
        y = functional.relu(self.first_norm(self.first(x)))
        x = functional.relu(x + self.second_norm(self.second(y)))
        x = functional.max_pool2d(x, 2)
        x = functional.relu(self.wide_norm(self.wide(x)))
        return self.scores(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The images of a batch, moved together by up to one pixel either way; zeros come in from outside."""
    padded = functional.pad(images, (1, 1, 1, 1))
    down, right = torch.randint(0, 3, (2,)).tolist()
    return padded[:, :, down : down + 8, right : right + 8]


def train(images: torch.Tensor, labels: torch.Tensor) -> Digits:
    """The trained network, ready for inference."""
    network = Digits()
    batches = -(-len(images) // 64)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).chunk(batches):
            loss = functional.cross_entropy(network(shifted(images[chosen])), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def export(network: Digits, path: Path) -> None:
    """Write the network as ONNX, batch-norms kept, so that the compiler has something to fold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter says that there is a newer one, which folds batch-norms itself
        torch.onnx.export(
            network, (torch.zeros(1, 1, 8, 8),), str(path), input_names=["image"], output_names=["scores"],
            dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where digits.onnx and digits.npz go")
    folder = parser.parse_args().folder
    torch.manual_seed(220)
    torch.set_num_threads(1)  # sums in one order: same machine, same network
    digits = load_digits()
    order = np.random.default_rng(220).permutation(len(digits.target))
    images, labels = digits.images[order][:, None].astype(np.float32), digits.target[order]
    network = train(torch.from_numpy(images[:TRAINED]), torch.from_numpy(labels[:TRAINED]))
    held_back = slice(TRAINED + CALIBRATED, None)
    with torch.no_grad():
        right = network(torch.from_numpy(images[held_back])).argmax(1).numpy() == labels[held_back]
    print(f"{right.mean():.2%} of {len(right)} held-back digits are recognised")
    export(network, folder / "digits.onnx")
    np.savez_compressed(
        folder / "digits.npz", calibration_images=images[TRAINED : TRAINED + CALIBRATED].astype(np.uint8),
        test_images=images[held_back].astype(np.uint8), test_labels=labels[held_back].astype(np.uint8),
    )  # fmt: skip


if __name__ == "__main__":
    main()
