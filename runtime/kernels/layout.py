"""Words of a descriptor, of a chain step, and of a thread's scratch memory. Plain integers: compiled code imports
them.

A descriptor is 48 int64. The first 24 words mean the same for every kernel; the rest belong to the kernel. Offsets
count from the arena's first byte; `STEPS`, `OFFSETS` and functions are absolute addresses. A kernel's output is seen
as `PIXELS` pixels (`OUT_WIDTH` to a row) of `COLUMNS` elements.
"""

WORDS = 48

# -- common words
FUNCTION, CHUNKS, PIXEL_CHUNKS = 0, 1, 2
DST, DST_TYPE, DST_ROW, DST_PIXEL, DST_FACTOR, ROUNDING = 3, 4, 5, 6, 7, 8
STEPS, STEP_COUNT, CHAIN = 9, 10, 11
OUT_WIDTH, PIXELS, COLUMNS = 12, 13, 14
SRC, SRC_TYPE, SRC_ROW, SRC_PIXEL, SRC_FACTOR = 15, 16, 17, 18, 19
STRIDE_Y, STRIDE_X = 20, 21
FIRST_CHUNK = 22
"""Number of this descriptor's first chunk within its phase (see `interpreter.py`)."""
BLOCK_COLUMNS = 23
"""Columns a block of the kernel has at most."""

# -- elementwise
REUSE = 24
"""Whether operands prepared for one block of columns serve the others."""

# -- convolution
FILTERS, OFFSETS, K_STEPS, FIX_FACTOR, PARTIAL, PARTIAL_SUMS, FILTER_TYPE, PANEL_BYTES, TAIL_MASK = range(24, 33)

# -- the common form of an epilogue (see `epilogue.py`); steps by their number, -1 where missing
FORM, FORM_SCALE, FORM_BIAS, FORM_RESIDUAL, POST_FACTOR, CLAMP_LOW, CLAMP_HIGH = range(33, 40)
FORM_BIT_ROUNDS, FORM_BIT_RESIDUAL, FORM_BIT_POST = 1, 2, 4
"""FORM is 0 for none, otherwise 1 + these bits."""

# -- windows: pooling and depthwise
KH, KW, DILATION_Y, DILATION_X, FUNCTION_CODE, WINDOW_FACTOR, WEIGHTS = range(24, 31)

# -- moving
RUN, N0, N1, N2, DST0, DST1, DST2, SRC0, SRC1, SRC2, VALUE, SIZE, ORDER = range(24, 37)

# -- chain steps
STEP_WORDS = 12
KIND, MODE, OPERAND_TYPE, OPERAND, OPERAND_ROW, OPERAND_PIXEL, PERIOD, CONSTANT, ROUND, SWAP, ADDRESS = range(11)
UNARY_BASE, NOTHING = 8, 31
"""Kinds: 0 to 4 the binary functions, UNARY_BASE + function, NOTHING (only rounding). ADDRESS: of `transcendental`."""
FULL, CYCLE, ROW, CONST = range(4)
MAX_STEPS = 12

# -- element types, as in the instruction set
TYPE_I8, TYPE_I16, TYPE_F16, TYPE_F32, TYPE_I32 = range(5)

# -- scratch of a thread
BLOCK = 512
"""Elements a chain works on at a time: the value and one operand fit the first-level cache."""
TILE = 14
"""Pixels of a convolution block."""
PANEL = 32
"""Columns of a panel of filters."""
SCRATCH_VALUE = 0
SCRATCH_OPERANDS = 4 * BLOCK + 64
"""Behind the value there is room for one vector more: the last group of a depthwise pixel may be written whole."""
SCRATCH_SUMS = SCRATCH_OPERANDS + MAX_STEPS * 4 * BLOCK
SCRATCH_ROWS = SCRATCH_SUMS + 8 * TILE * PANEL
SCRATCH_START = SCRATCH_ROWS + 8 * 16
SCRATCH_PANEL = SCRATCH_START + 4 * 2 * PANEL
"""From here on: weights of a window as fp32, or a panel whose padding had to be cleared."""
