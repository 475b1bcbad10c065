"""Words of a descriptor, of a chain step, and of a thread's scratch memory. Plain integers: compiled code imports
them.

A descriptor is 48 int64. The first 24 words mean the same for every kernel; the rest belong to the kernel. Offsets
count from the arena's first byte; `STEPS`, `OFFSETS` and functions are absolute addresses. A kernel's output is seen
as `PIXELS` pixels (`OUT_WIDTH` to a row) of `COLUMNS` elements.
"""

WORDS = 48

# -- common words
FUNCTION, CHUNKS, PIXEL_CHUNKS = 0, 1, 2
DST, DST_ROW, DST_PIXEL, DST_FACTOR = 3, 5, 6, 7
REUSE = 8
"""Whether operands prepared for one block of columns serve the others."""
STEPS = 9
OUT_WIDTH, PIXELS, COLUMNS = 12, 13, 14
SRC, SRC_ROW, SRC_PIXEL, SRC_FACTOR = 15, 17, 18, 19
STRIDE_Y, STRIDE_X = 20, 21
FIRST_CHUNK = 22
"""Number of this descriptor's first chunk within its phase (see `interpreter.py`)."""
BLOCK_COLUMNS = 23
"""Columns a block of the kernel has at most."""

# -- convolution
FILTERS, OFFSETS, K_STEPS, FIX_FACTOR, PARTIAL_SUMS, PANEL_BYTES, TAIL_MASK, STARTS = range(24, 32)
"""STARTS: what the sums of every column begin with, where that could be told beforehand (see `vnni.py`)."""

# -- windows: pooling and depthwise
KH, KW, DILATION_Y, DILATION_X, WINDOW_FACTOR, WEIGHTS = range(24, 30)

# -- moving
RUN, N0, N1, N2, DST0, DST1, DST2, SRC0, SRC1, SRC2, VALUE, ORDER = range(24, 36)

# -- what a kernel is translated for, and no kernel reads (see `packing.py`)
SRC_TYPE, ROUNDING, FILTER_TYPE, PARTIAL, FUNCTION_CODE, SIZE = range(40, 46)

# -- chain steps
STEP_WORDS = 12
KIND, MODE, OPERAND_TYPE, OPERAND, OPERAND_ROW, OPERAND_PIXEL, PERIOD, CONSTANT, ROUND, SWAP = range(10)
ADD, SUB, MUL, MAX, MIN, AT_LEAST, AT_MOST = range(7)
UNARY_BASE, RELU, ABS, NOTHING = 8, 8, 9, 31
"""Kinds: the binary functions, UNARY_BASE + function, NOTHING (only rounding). AT_LEAST and AT_MOST are MAX and MIN
with a constant that no zero or NaN has to be told apart from."""
FULL, CYCLE, ROW, CONST = range(4)
MAX_STEPS = 12

# -- element types, as in the instruction set
TYPE_I8, TYPE_I16, TYPE_F16, TYPE_F32, TYPE_I32 = range(5)
SIZES = (1, 2, 2, 4, 4)
"""Bytes of an element, by type."""

# -- scratch of a thread
BLOCK = 512
"""Columns that operands are prepared for at a time."""
PANEL = 32
"""Columns of a panel of filters."""
OPERAND_BYTES = 4 * BLOCK + 64
"""An operand's vector for a block; the last group of lanes may be written whole."""
SCRATCH_OPERANDS = 0
SCRATCH_START = MAX_STEPS * OPERAND_BYTES
SCRATCH_PANEL = SCRATCH_START + 4 * PANEL
"""From here on: weights of a window as fp32, or a panel whose padding had to be cleared."""
