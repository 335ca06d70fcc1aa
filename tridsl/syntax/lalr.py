"""The Lark parser for the grammar: built once a process. Imports Lark, so import this module only when text is parsed."""

from __future__ import annotations

from functools import lru_cache

from lark import Lark, UnexpectedInput

from tridsl import grammar

__all__ = ["UnexpectedInput", "parser"]


@lru_cache(maxsize=1)
def parser() -> Lark:
    """The LALR parser of `grammar/tri.lark`."""
    return Lark(
        grammar.text(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True
    )
