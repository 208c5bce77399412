"""Whether a text is what a schema allows, by llguidance itself, one byte a token."""

import functools
from typing import Any

import llguidance

OPTIONS: Any = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,20}"}


@functools.cache
def _bytes():
    return llguidance.LLTokenizer("byte")


@functools.lru_cache(maxsize=4)
def _matcher(grammar):
    return llguidance.LLMatcher(_bytes(), grammar, log_level=0)


def of_schema(schema):
    """The grammar of a schema."""
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)


def complaint(schema):
    """What llguidance has against a schema; empty for nothing."""
    return llguidance.LLMatcher.validate_grammar(of_schema(schema), _bytes())


def accepts(schema, text):
    """Whether a text satisfies a schema that can be enforced, and is whole."""
    return takes(of_schema(schema), text)


def takes(grammar, text):
    """Whether a text is one that a grammar makes, and is whole."""
    matcher = _matcher(grammar).deep_copy()
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    may_come = matcher.validate_tokens(tokens) == len(tokens)
    return may_come and matcher.consume_tokens(tokens) and matcher.is_accepting()
