"""Where compiled code is kept: beside the installation, else in the home folder, else under the temporary one.

Numba chooses the first two by itself but refuses to compile functions it cannot cache, as in many containers; a folder
of the user's own under the system's temporary one is used then. `NUMBA_CACHE_DIR`, where set, wins. The simulator's
kernels are kept in the same place, as files that state their own digest.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any


def ensure_code_cache() -> None:
    """Call before the first cached function of a module is declared."""
    import numba

    settings: Any = numba.config
    if settings.CACHE_DIR or os.access(Path(__file__).parent, os.W_OK) or _can_write_at_home():
        return
    settings.CACHE_DIR = str(_temporary())


def _temporary() -> Path:
    """A folder under the temporary one; where somebody else made that of our name, one of this process alone: machine
    code is run as it is read."""
    folder = Path(tempfile.gettempdir()) / f"mluc-code-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid() else _of_this_process()


@cache
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="mluc-code-"))


def code_folder() -> Path:
    """The folder for kernels' machine code."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if os.access(Path(__file__).parent, os.W_OK):
        return Path(__file__).parent / "__pycache__"
    return Path.home() / ".cache" / "mluc" if _can_write_at_home() else _temporary()


def read_code(folder: str, name: str) -> bytes | None:
    """Code kept under a name, or None when there is none or it is damaged."""
    try:
        content = (code_folder() / folder / name).read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def write_code(folder: str, name: str, code: bytes) -> None:
    """Keep code for other processes. Where that fails, they compile it again."""
    try:
        place = code_folder() / folder
        place.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=place)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, place / name)
    except OSError:
        Path(temporary).unlink(missing_ok=True)


def _can_write_at_home() -> bool:
    """Whether Numba's own fallback, a cache folder in the user's home, would work."""
    try:
        folder = Path.home() / ".cache"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder, os.W_OK)
