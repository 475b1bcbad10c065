"""The argument parser of the verbs: argparse, that says which option a misspelt one may have been meant for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import NoReturn

_UNKNOWN = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose message for an unknown option names the nearest ones it has, without all the others."""

    def error(self, message: str) -> NoReturn:
        found = _UNKNOWN.fullmatch(message)
        if found is not None:
            message = "; ".join([message, *self._suggestions(found[1].split())])
        self.exit(2, f"{self.prog}: error: {message}\n`{self.prog} --help` says what there is\n")

    def given(self, words: Sequence[str]) -> set[str]:
        """Destinations of the options among `words`, be their values the defaults or not."""
        options = {word.partition("=")[0] for word in words}
        return {action.dest for action in self._actions if options & set(action.option_strings)}

    def _suggestions(self, words: list[str]) -> Iterator[str]:
        known = sorted(set(self._options()))
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("-"):
                close = get_close_matches(option, known, n=2, cutoff=0.7) or [k for k in known if k.startswith(option)]
                if close:
                    yield f"for {option}, did you mean " + " or ".join(close) + "?"

    def _options(self) -> Iterator[str]:
        """Long options of this parser and of its verbs."""
        for action in self._actions:
            yield from (o for o in action.option_strings if o.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._options()
