"""Options and fixtures for tests that need real models or data: absent folders skip, with the reason printed; and what
tests measured, printed when all are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: what fails, fails again. `--hypothesis-profile=default` looks for others.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--models", metavar="DIR", help="folder of real models (MODEL.md says which)")
    parser.addoption("--data", metavar="DIR", help="folder of evaluation data (DATA.md says which)")


def _folder(request: pytest.FixtureRequest, option: str) -> Path:
    given = request.config.getoption(option)
    if not given:
        pytest.skip(f"needs real files: give {option} DIR")
    folder = request.config.invocation_params.dir / given  # absolute: tests may work in folders of their own
    if not folder.is_dir():
        pytest.skip(f"{option} {given} is not a folder")
    return folder


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest) -> Path:
    """The folder of real models."""
    return _folder(request, "--models")


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """The folder of evaluation data."""
    return _folder(request, "--data")


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Takes lines to be printed at the end of the run, whichever process the test ran in."""
    return lambda *lines: record_property("shown", "\n".join(map(str, lines)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ()) if r.when == "call"]
    shown: dict[str, list[str]] = {}
    for report in reports:
        lines = [str(text) for name, text in report.user_properties if name == "shown"]
        if lines:
            shown.setdefault(report.nodeid.partition("[")[0], []).extend(lines)
    for test, lines in shown.items():
        terminalreporter.section(test, sep="-")
        terminalreporter.write_line("\n".join(lines))
