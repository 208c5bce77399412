"""A byte-level vocabulary for models that tests make themselves."""

from __future__ import annotations

from collections.abc import Sequence

import gguf

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL = (END_OF_TEXT, TURN_START, TURN_END)
END_OF_TEXT_ID, TURN_START_ID, TURN_END_ID = 0, 1, 2
FIRST_BYTE_ID = len(CONTROL)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """GPT-2's printable letter for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters: list[str] = []
    extra = 0
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + extra))
            extra += 1
    return letters


class Vocabulary:
    """Three control tokens, 256 bytes, then words (whole tokens) and markers (user-defined)."""

    def __init__(self, words: Sequence[str | bytes] = (), markers: Sequence[str] = ()) -> None:
        letters = byte_letters()
        written = [
            "".join(letters[b] for b in (w.encode() if isinstance(w, str) else w)) for w in words
        ]
        self.tokens = [*CONTROL, *letters, *written, *markers]
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError("Words must differ from each other and from single bytes.")
        first_word = FIRST_BYTE_ID + 256
        self.word_ids = list(range(first_word, first_word + len(words)))
        self.marker_ids = {m: first_word + len(words) + i for i, m in enumerate(markers)}
        self.types = (
            [gguf.TokenType.CONTROL] * len(CONTROL)
            + [gguf.TokenType.NORMAL] * (256 + len(words))
            + [gguf.TokenType.USER_DEFINED] * len(markers)
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def write(
        self,
        writer: gguf.GGUFWriter,
        chat_template: str | None,
        *,
        wants_bos: bool = False,
        names_ends: bool = True,
    ) -> None:
        writer.add_vocab_size(len(self))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(["h e", "i n"])  # llama.cpp refuses a vocabulary without merges
        if names_ends:
            writer.add_bos_token_id(TURN_START_ID)
            writer.add_eos_token_id(TURN_END_ID)
        writer.add_pad_token_id(END_OF_TEXT_ID)
        writer.add_add_bos_token(wants_bos)
        writer.add_add_space_prefix(False)
        if chat_template is not None:
            writer.add_chat_template(chat_template)


def id_of_byte(letter: str) -> int:
    return FIRST_BYTE_ID + ord(letter)
