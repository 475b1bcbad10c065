"""Compile a model and see what every pass changed: python examples/compile_and_watch.py MODEL IMAGES.npz"""

import sys

import numpy as np

import compiler
from runtime.session import Session

if len(sys.argv) != 3:
    sys.exit(__doc__)
module = compiler.load(sys.argv[1])
images = dict(np.load(sys.argv[2]))  # one array per input, under its name
module = compiler.run_pipeline(module, "prepare", dump="changed")  # prints the IR after each pass that changed it
scheme = compiler.calibrate(module, [images])
model = compiler.compile_model(module, scheme=scheme, board="m2", cores=4)
model.save("watched.cambricon")
print(Session("watched.cambricon").run_many(images))
