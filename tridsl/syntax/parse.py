"""`.tri` text to a `Module`, or a `TriError` that shows where and what to write instead."""

from __future__ import annotations

from pathlib import Path

from tridsl.diagnostics import SourceFile, Span, TriError, error
from tridsl.syntax.layout import MAXIMUM_LENGTH, scan
from tridsl.syntax.nodes import Module


def parse(source: SourceFile, *, cache_dir: Path | None = None) -> Module:
    """The syntax of a whole file, every node with its span.

    `cache_dir`: where the parser's tables may be kept between processes (`lalr.parser`). Raises `TriError` with a code
    of the E01xx range. Time is linear in the length of the text.
    """
    if len(source.text) > MAXIMUM_LENGTH:
        raise error(
            "E0106",
            f"this source has {len(source.text)} characters, more than the {MAXIMUM_LENGTH} that one may have",
            Span(source=source, start=0, end=0),
            help="split it into several files",
        )
    layout = scan(source)
    # Lark is loaded when the first text is parsed, not when tridsl is imported: compiled programs need no parser.
    from tridsl.syntax import lalr
    from tridsl.syntax.build import build
    from tridsl.syntax.mistakes import diagnose

    parser = lalr.parser(cache_dir)
    try:
        tree = parser.parse(layout.text)
    except lalr.UnexpectedInput as unexpected:
        raise diagnose(parser, source, layout, unexpected) from None
    if layout.bracket_error:
        raise TriError(layout.bracket_error)
    return build(tree, source)
