"""Tags from values: what is not made here is escaped, so no name, log line or cell can become markup.

    tag("td", path, class_="path")        text children and attributes are escaped, control characters shown as \\x1b
    document(title, body, ...)            a whole page: style and script inside, nothing else may run or load

A page's content security policy allows one style and one script by their SHA-256 and nothing besides: no request, no
inline handler, no style attribute. Widths and positions are therefore SVG attributes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Union

from byos_run.errors import printable


class Markup(str):
    """HTML that :func:`tag` made; it is not escaped again."""

    __slots__ = ()


Child = Union[str, int, float, Markup, None, Iterable["Child"]]
_VOID = frozenset({"meta", "input", "br", "hr", "link", "img"})
NOTHING = Markup("")


def text(value: object, *, limit: int = 4000) -> Markup:
    """*value* as text: at most *limit* characters, control characters visible, markup inert."""
    plain = str(value)
    if len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    return Markup(html.escape(plain if plain.isprintable() else printable(plain), quote=True))


def joined(children: Iterable[Child]) -> Markup:
    return Markup("".join(_child(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """``class_`` is class, ``data_s`` is data-s; an attribute that is None or False is left out, True stands alone."""
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, (str, int, float)):
        return text(child)
    return joined(child)


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'


def document(title: str, *body: Child, style: str, script: str) -> str:
    """A page that needs nothing from anywhere and lets nothing in."""
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Markup(f"<style>{style}</style>"),
    )
    page = tag("html", head, tag("body", *body, Markup(f"<script>{script}</script>")), lang="en")
    return f"<!doctype html>\n{page}\n"


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
