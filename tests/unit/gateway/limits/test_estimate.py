"""What a prompt is estimated to have."""

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.limits import estimate


def chat(*texts: str, image: bytes = b"") -> generation.GenerateRequest:
    request = generation.GenerateRequest()
    for text in texts:
        request.chat.messages.add().parts.add(text=text)
    if image:
        request.chat.messages[0].parts.add().image.data = image
    return request


def test_a_prompt_has_at_most_three_times_what_is_estimated():
    text = "a b c d e f" * 1000

    assert estimate.prompt_tokens(chat(text)) * 3 >= len(text.encode())
    assert estimate.prompt_tokens(chat(text)) < len(text)


def test_token_ids_are_counted():
    request = generation.GenerateRequest()
    request.token_ids.ids.extend(range(17))

    assert estimate.prompt_tokens(request) == 17


def test_a_picture_does_not_count_by_its_bytes():
    plain, pictured = chat("Hi" * 10_000), chat("Hi" * 10_000, image=bytes(3 << 20))

    added = estimate.prompt_tokens(pictured) - estimate.prompt_tokens(plain)

    assert 0 < added < 2000


def test_a_picture_in_the_result_of_a_tool_is_one_too():
    request = chat("Hi")
    result = request.chat.messages[0].parts.add().tool_result
    result.parts.add().image.data = bytes(3 << 20)

    assert estimate.prompt_tokens(request) < 2000


def test_texts_to_embed_are_counted_one_by_one():
    texts = [neuron.EmbedInput(text="x" * 30), neuron.EmbedInput(text="x" * 30)]

    assert estimate.embedding_tokens(texts) == 24
