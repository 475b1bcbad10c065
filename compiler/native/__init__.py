"""Machine code made by the project itself: a small language, LLVM behind it, and a place where code is kept."""
