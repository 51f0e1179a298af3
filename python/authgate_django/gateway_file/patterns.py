"""What paths a pattern of the URLconf can match. Whatever is not understood covers more, never less."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.urls.resolvers import LocalePrefixPattern, RegexPattern

MOST = 64  # alternatives of one pattern; beyond it they are not listed one by one
# Characters that a route's path may have.
PLAIN = re.compile(r"[A-Za-z0-9\-._~!$&'()+,=:@/]*\Z")


@dataclass(frozen=True)
class Any_:
    """Text that is only known when a request comes."""

    regex: str | None = None  # what it matches; `None` where that is not known
    deep: bool = True  # whether it may have a `/`
    name: str | None = None


REST = Any_()
Tokens = tuple["str | Any_", ...]


def expand(pattern: Any, endpoint: bool) -> list[Tokens]:
    """The alternatives of one pattern, of `path()`, `re_path()` or `i18n_patterns()`."""
    if isinstance(pattern, LocalePrefixPattern):
        return [(pattern.language_prefix,)]
    source = pattern.regex.pattern
    found, ended = scan(source)
    if isinstance(pattern, RegexPattern):
        if not (source.startswith(("^", r"\A")) or (endpoint and source.endswith("$"))):
            return [(REST,)]  # it matches anywhere in the path
        if endpoint and not ended:
            found = [(*tokens, REST) for tokens in found]
    return found


def scan(source: str) -> tuple[list[Tokens], bool]:
    """The alternatives of a regular expression, and whether it ends with `$`."""
    try:
        re.compile(source)
    except re.error:
        return [(REST,)], True
    found: list[Tokens] = [()]
    ended = False
    at = 0
    while at < len(source):
        char = source[at]
        literal: str | None = None
        if source.startswith((r"\Z", r"\z"), at) or char == "$":
            ended = True
            at += 1 if char == "$" else 2
            continue
        if char == "^" or source.startswith((r"\A", r"\b"), at):
            at += 1 if char == "^" else 2
            continue
        if char == "|" or source.startswith("(?", at) and not source.startswith(("(?P<", "(?:"), at):
            return [(REST,)], True  # flags, look-around, alternatives of the whole
        if char == "(":
            end = _closing(source, at)
            options = _group(source[at + 1 : end])
        elif char == "[":
            end = _class_end(source, at)
            options = [(_dynamic(source[at : end + 1]),)]
        elif char == "\\":
            end = at + 1
            if source[end].isalnum():
                options = [(_dynamic(source[at : end + 1]),)]
            else:
                literal = source[end]
                options = [(literal,)]
        elif char == ".":
            end = at
            options = [(REST,)]
        else:
            end = at
            literal = char
            options = [(literal,)]
        at = end + 1
        if at < len(source) and source[at] in "*+?{":
            if source[at] == "?":
                options = [(), *options]
                at += 1
            else:
                close = source.index("}", at) if source[at] == "{" else at
                options = [_repeated(option) for option in options]
                if source[at] == "*" or source.startswith("{0", at):
                    options = [(), *options]
                at = close + 1
            if at < len(source) and source[at] == "?":  # not greedy
                at += 1
        found = [(*tokens, *option) for tokens in found for option in options]
        if len(found) > MOST:
            return [(REST,)], True
    return found, ended


def _repeated(option: Tokens) -> Tokens:
    if len(option) == 1 and isinstance(option[0], Any_) and not option[0].deep:
        regex = option[0].regex
        return (Any_(None if regex is None else f"(?:{regex})*", False, option[0].name),)
    return (REST,)


def _group(inner: str) -> list[Tokens]:
    name = None
    if inner.startswith("?P<"):
        name, _, inner = inner[3:].partition(">")
    elif inner.startswith("?:"):
        inner = inner[2:]
    words = inner.replace("\\-", "-").split("|")
    if all(re.fullmatch(r"[\w\-/]*", word, re.ASCII) for word in words):
        return [(word,) for word in words]
    return [(_dynamic(inner, name),)]


def _dynamic(regex: str, name: str | None = None) -> Any_:
    rest = re.sub(r"\[\^[^\]]*/[^\]]*\]", "x", regex)  # `[^/.]`: no `/`
    rest = re.sub(r"\[(?!\^)[^\]/\\]*\]", "x", rest)  # `[a-z.]`
    rest = re.sub(r"\[(?!\^)(?:[^\]/\\]|\\[dw.\-])*\]", "x", rest).replace("\\.", "x")
    deep = re.search(r"[/.]|\[\^|\\[SWD]|\(\?[^:P]|\\x|\\u", rest) is not None
    return Any_(regex, deep, name)


def _class_end(source: str, at: int) -> int:
    at += 2 if source.startswith("[^", at) else 1
    if source[at] == "]":
        at += 1
    while source[at] != "]":
        at += 2 if source[at] == "\\" else 1
    return at


def _closing(source: str, at: int) -> int:
    depth = 0
    while True:
        char = source[at]
        if char == "\\":
            at += 1
        elif char == "[":
            at = _class_end(source, at)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return at
        at += 1


def with_formats(tokens: Tokens, formats: Iterable[str] | None, kwarg: str = "format") -> list[Tokens]:
    """With the suffixes that a view renders, such as `.json`; every other suffix is 404 in DRF. `None`: not known."""
    found: list[Tokens] = [()]
    for at, token in enumerate(tokens):
        options: list[Tokens] = [(token,)]
        if isinstance(token, Any_) and token.name == kwarg and formats is not None:
            regex, before = token.regex or "", tokens[at - 1] if at else ""
            if regex.startswith(r"\."):  # of path()
                ends = ["", "/"] if regex.endswith("/?") else [""]
                options = [(f".{name}{end}",) for name in formats for end in ends]
            elif isinstance(before, str) and before.endswith(".") and not regex.endswith("*"):
                options = [(name,) for name in formats]
        found = [(*left, *option) for left in found for option in options]
    return found


@dataclass(frozen=True)
class Shape:
    """All paths of one alternative, split at `/`."""

    tokens: Tokens

    def pattern(self) -> str:
        """The narrowest path of a route that covers it: the path itself, or a prefix of whole segments."""
        text = "/"
        for token in self.tokens:
            if isinstance(token, Any_):
                return _prefix(text)
            text += token
        if not PLAIN.match(text) or "//" in text or any(part in (".", "..") for part in text.split("/")):
            return _prefix(text)
        return text

    def reaches_below(self, folder: str, itself: bool) -> bool:
        """Whether it can match a path below this folder (`/api/orders`), or the folder itself if that is asked for."""
        wanted = folder.strip("/").split("/")
        segments: list[list[str | Any_]] = [[]]
        for token in self.tokens:
            if isinstance(token, Any_):
                segments[-1].append(token)
                continue
            first, *more = token.split("/")
            segments[-1].append(first)
            segments += [[part] for part in more]
        for at, name in enumerate(wanted):
            if at >= len(segments):
                return False
            regex = ""
            for token in segments[at]:
                if isinstance(token, Any_) and token.deep:
                    return name.startswith(_literal(segments[at]))
                part = (token.regex or "[^/]*") if isinstance(token, Any_) else re.escape(token)
                regex += f"(?:{part})"
            if not re.fullmatch(regex, name):
                return False
        deeper = len(segments) > len(wanted) and any(part not in ([], [""]) for part in segments[len(wanted) :])
        return deeper or itself


def _literal(segment: list[str | Any_]) -> str:
    return segment[0] if segment and isinstance(segment[0], str) else ""


def _prefix(text: str) -> str:
    parts = text.split("/")[1:-1]
    kept = []
    for part in parts:
        if not part or part in (".", "..") or not PLAIN.match(part):
            break
        kept.append(part)
    return "/" + "".join(part + "/" for part in kept) + "*"
