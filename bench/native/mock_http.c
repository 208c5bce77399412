// An OpenAI chat completions server, for routers that speak HTTP to their backends.
#include "mock.h"

enum { TEXT_SIZE = 1 << 20 };

#define CHUNK_HEAD                                                                              \
  "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":"      \
  "1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":"
static const char PIECE_HEAD[] = "data: " CHUNK_HEAD "{\"content\":\"";
static const char PIECE_TAIL[] = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char LAST[] =
    "data: " CHUNK_HEAD "{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    "transfer-encoding: chunked\r\n\r\n";
static const char WHOLE[] =
    "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"%s\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,"
    "\"completion_tokens\":%u,\"total_tokens\":%u}}";
// What routers ask for at start, all in one: models, health, worker information.
static const char ABOUT[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1,"
    "\"owned_by\":\"mock\",\"max_model_len\":4096}],\"model_path\":\"bench\","
    "\"is_generation\":true,\"tp_size\":1,\"dp_size\":1,\"version\":\"0.5.0\",\"status\":\"ok\"}";

static void put_chunk_size(Buffer *out, size_t size) {
  char line[16];
  buffer_put(out, line, (size_t)sprintf(line, "%zx\r\n", size));
}

static void put_document(Buffer *out, const char *document, size_t size) {
  char head[128];
  int n = sprintf(head,
                  "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                  size);
  buffer_put(out, head, (size_t)n);
  buffer_put(out, document, size);
}

static void http_write(Stream *stream) {
  static char text[TEXT_SIZE];
  Buffer *out = &stream->connection->out;
  Sequence *s = stream->sequences;
  u32 tokens = s ? sequence_sendable(s) : 0;
  if (tokens == 0) return;
  size_t size = sequence_text(s, tokens, text);
  put_chunk_size(out, sizeof PIECE_HEAD - 1 + size + sizeof PIECE_TAIL - 1);
  buffer_put(out, PIECE_HEAD, sizeof PIECE_HEAD - 1);
  buffer_put(out, text, size);
  buffer_put(out, PIECE_TAIL, sizeof PIECE_TAIL - 1);
  buffer_text(out, "\r\n");
  s->left -= tokens;
  s->due -= tokens;
  if (s->left > 0) return;
  put_chunk_size(out, sizeof LAST - 1);
  buffer_put(out, LAST, sizeof LAST - 1);
  buffer_text(out, "\r\n0\r\n\r\n");
  stream_close(stream);
}

static u32 number_behind(const char *body, const char *key, u32 otherwise) {
  const char *found = strstr(body, key);
  found = found ? strchr(found + strlen(key), ':') : NULL;
  return found ? (u32)atoi(found + 1) : otherwise;
}

static bool wants_stream(const char *body) {
  const char *found = strstr(body, "\"stream\"");
  if (!found) return false;
  found += 8;
  while (*found == ' ' || *found == ':') found++;
  return strncmp(found, "true", 4) == 0;
}

static void complete(Connection *c, const char *body, size_t size) {
  static char text[TEXT_SIZE], document[TEXT_SIZE + 1024];
  u32 tokens = number_behind(body, "\"max_tokens\"", 0);
  if (!tokens) tokens = number_behind(body, "\"max_completion_tokens\"", 64);
  if (wants_stream(body)) {
    buffer_put(&c->out, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    Stream *stream = stream_open(c, 1);
    stream->kind = STREAM_HTTP;
    sequence_begin(stream, 0, tokens, UINT32_MAX, (const u8 *)body, size);
    return;
  }
  Sequence plain = {.total = tokens};
  text[sequence_text(&plain, tokens, text)] = 0;
  int n = sprintf(document, WHOLE, text, tokens, tokens + 12);
  put_document(&c->out, document, (size_t)n);
}

// The size of the first request in the buffer, or 0 while it is not whole.
static size_t whole_request(const Buffer *in, size_t *head_size) {
  const char *data = (const char *)buffer_head(in);
  const char *end = memmem(data, buffer_size(in), "\r\n\r\n", 4);
  if (!end) return 0;
  *head_size = (size_t)(end + 4 - data);
  const char *length = strcasestr(data, "\r\ncontent-length:");
  if (length && length < end) {
    size_t size = *head_size + (size_t)atol(length + 17);
    return buffer_size(in) >= size ? size : 0;
  }
  const char *chunked = strcasestr(data, "transfer-encoding: chunked");
  if (!chunked || chunked > end) return *head_size;
  const char *last = memmem(end, buffer_size(in) - *head_size, "\r\n0\r\n\r\n", 7);
  return last ? (size_t)(last + 7 - data) : 0;
}

static void http_received(Connection *c) {
  size_t head_size = 0, size;
  while (!c->streams) {
    buffer_reserve(&c->in, 1)[0] = 0;
    if (!(size = whole_request(&c->in, &head_size))) return;
    char *data = (char *)buffer_head(&c->in);
    char behind = data[size];
    data[size] = 0;
    if (strncmp(data, "POST", 4) == 0)
      complete(c, data + head_size, size - head_size);
    else
      put_document(&c->out, ABOUT, sizeof ABOUT - 1);
    data[size] = behind;
    c->in.start += size;
  }
}

const Protocol http_protocol = {http_received, http_write};
