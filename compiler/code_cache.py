"""Where Numba keeps compiled code when neither the installation nor the home folder can be written.

That is so in many containers, and Numba refuses to compile functions it cannot cache: a folder of the user's own under
the system's temporary one is used then. `NUMBA_CACHE_DIR`, where set, wins.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


def ensure_code_cache() -> None:
    """Call before the first cached function of a module is declared."""
    import numba

    settings: Any = numba.config
    if settings.CACHE_DIR or os.access(Path(__file__).parent, os.W_OK) or _can_write_at_home():
        return
    folder = Path(tempfile.gettempdir()) / f"mluc-code-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    settings.CACHE_DIR = str(folder)


def _can_write_at_home() -> bool:
    """Whether Numba's own fallback, a cache folder in the user's home, would work."""
    try:
        folder = Path.home() / ".cache"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder, os.W_OK)
