"""The network of `mluc demo` and its data, made by examples/train_digits.py: digits.onnx, and digits.npz with the
calibration images and the held-back test images (8x8 pixels, values 0 to 16) with labels. Data only, no code."""
