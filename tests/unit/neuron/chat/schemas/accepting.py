"""Whether a text is what a schema allows, by llguidance itself, one byte a token."""

import functools

import llguidance

OPTIONS = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,20}"}


@functools.cache
def _bytes():
    return llguidance.LLTokenizer("byte")


def complaint(schema):
    """What llguidance has against a schema; empty for nothing."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)
    return llguidance.LLMatcher.validate_grammar(grammar, _bytes())


def accepts(schema, text):
    """Whether a text satisfies a schema that can be enforced, and is whole."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)
    matcher = llguidance.LLMatcher(_bytes(), grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return (
        matcher.validate_tokens(tokens) == len(tokens)
        and matcher.consume_tokens(tokens)
        and matcher.is_accepting()
    )
