// NeuronService.Session and .Generate over HTTP/2, as protos/cortex/v1 has them.
//
// Only as much HTTP/2 as gRPC clients need. The header table is announced as empty, so that
// a request's path stands in its header block in clear and nothing has to be decompressed.
#include "mock.h"

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { FRAME_SIZE = 16384, RECEIVE_WINDOW = 1 << 24, MESSAGE_SIZE = 1 << 20 };
enum { UNIMPLEMENTED = 12 };
enum { FINISH_REASON_MAX_TOKENS = 3, PROMPT_TOKENS = 12 };
enum { FIRST_TOKEN_ID = 20000, TOKEN_IDS = 65536, TOKEN_ID_SIZE = 3 };  // bytes of each on the wire

static const char INSTANCE[] = "bench-0";

// Protocol buffers, by hand.

static void put_varint(Buffer *b, u64 value) {
  u8 bytes[10];
  int n = 0;
  for (; value >= 128; value >>= 7) bytes[n++] = (u8)(value | 128);
  bytes[n++] = (u8)value;
  buffer_put(b, bytes, (size_t)n);
}

static void put_number(Buffer *b, u32 field, u64 value) {
  put_varint(b, field << 3);
  put_varint(b, value);
}

static void put_bytes(Buffer *b, u32 field, const void *data, size_t size) {
  put_varint(b, field << 3 | 2);
  put_varint(b, size);
  buffer_put(b, data, size);
}

static void put_message(Buffer *b, u32 field, const Buffer *message) {
  put_bytes(b, field, buffer_head(message), buffer_size(message));
}

typedef struct {
  const u8 *at, *end;
  u32 field;
  u64 number;        // of a varint field
  const u8 *bytes;   // of a length-delimited one
  size_t size;
} Reader;

static u64 read_varint(Reader *r) {
  u64 value = 0;
  for (int shift = 0; r->at < r->end && shift < 64; shift += 7) {
    u8 byte = *r->at++;
    value |= (u64)(byte & 127) << shift;
    if (!(byte & 128)) break;
  }
  return value;
}

static bool read_field(Reader *r) {
  if (r->at >= r->end) return false;
  u64 tag = read_varint(r);
  r->field = (u32)(tag >> 3);
  r->bytes = NULL;
  r->number = r->size = 0;
  switch (tag & 7) {
    case 0: r->number = read_varint(r); break;
    case 1: r->at += 8; break;
    case 5: r->at += 4; break;
    case 2:
      r->size = read_varint(r);
      if (r->size > (size_t)(r->end - r->at)) return false;
      r->bytes = r->at;
      r->at += r->size;
      break;
    default: return false;
  }
  return r->at <= r->end;
}

static Reader reader(const u8 *data, size_t size) { return (Reader){.at = data, .end = data + size}; }

// GenerateRequest: stop (8) . max_tokens (1).
static u32 max_tokens(const u8 *request, size_t size) {
  Reader r = reader(request, size);
  while (read_field(&r)) {
    if (r.field != 8 || !r.bytes) continue;
    Reader stop = reader(r.bytes, r.size);
    while (read_field(&stop))
      if (stop.field == 1) return (u32)stop.number;
  }
  return 64;
}

// HTTP/2 frames.

static void put_frame(Connection *c, size_t size, u8 type, u8 flags, u32 stream) {
  u8 h[9] = {(u8)(size >> 16), (u8)(size >> 8), (u8)size, type, flags,
             (u8)(stream >> 24), (u8)(stream >> 16), (u8)(stream >> 8), (u8)stream};
  buffer_put(&c->out, h, sizeof h);
}

static void put_u32(Connection *c, u32 v) {
  u8 bytes[4] = {(u8)(v >> 24), (u8)(v >> 16), (u8)(v >> 8), (u8)v};
  buffer_put(&c->out, bytes, 4);
}

static u32 get_u32(const u8 *p) { return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3]; }

static void put_literal(Buffer *b, const char *name, const char *value) {
  u8 size = (u8)strlen(name);
  buffer_put(b, "\0", 1);
  buffer_put(b, &size, 1);
  buffer_text(b, name);
  size = (u8)strlen(value);
  buffer_put(b, &size, 1);
  buffer_text(b, value);
}

static void put_headers(Stream *s, Buffer *block, bool last) {
  put_frame(s->connection, buffer_size(block), HEADERS, END_HEADERS | (last ? END_STREAM : 0), s->id);
  buffer_put(&s->connection->out, buffer_head(block), buffer_size(block));
  buffer_clear(block);
}

static void open_response(Stream *s) {
  static Buffer block;
  buffer_put(&block, "\x88", 1);  // :status 200
  put_literal(&block, "content-type", "application/grpc");
  put_headers(s, &block, false);
}

static void put_trailers(Stream *s, int status) {
  static Buffer block;
  char text[12];
  snprintf(text, sizeof text, "%d", status);
  put_literal(&block, "grpc-status", text);
  put_headers(s, &block, true);
}

static void refuse(Stream *s) {
  static Buffer block;
  buffer_put(&block, "\x88", 1);
  put_literal(&block, "content-type", "application/grpc");
  put_literal(&block, "grpc-status", "12");
  put_literal(&block, "grpc-message", "the mock has only Session and Generate");
  put_headers(s, &block, true);
  stream_close(s);
}

static int64_t send_window(const Stream *s) {
  return s->window < s->connection->window ? s->window : s->connection->window;
}

// The caller has made sure that it fits the window.
static void put_grpc_message(Stream *s, const Buffer *message) {
  Connection *c = s->connection;
  size_t size = buffer_size(message), total = size + 5, sent = 0;
  u8 prefix[5] = {0, (u8)(size >> 24), (u8)(size >> 16), (u8)(size >> 8), (u8)size};
  while (sent < total) {
    size_t part = total - sent > FRAME_SIZE ? FRAME_SIZE : total - sent;
    put_frame(c, part, DATA, 0, s->id);
    if (sent == 0) {
      buffer_put(&c->out, prefix, 5);
      buffer_put(&c->out, buffer_head(message), part - 5);
    } else {
      buffer_put(&c->out, buffer_head(message) + sent - 5, part);
    }
    sent += part;
  }
  s->window -= (int64_t)total;
  c->window -= (int64_t)total;
}

// What a sequence says.

static void build_started(Buffer *event) {
  static Buffer started;
  buffer_clear(&started);
  put_bytes(&started, 1, INSTANCE, sizeof INSTANCE - 1);
  put_number(&started, 2, PROMPT_TOKENS);
  put_message(event, 2, &started);  // GenerateResponse.started
}

static void build_finished(Buffer *finished, u32 tokens) {
  static Buffer usage;
  buffer_clear(&usage);
  put_number(&usage, 1, PROMPT_TOKENS);
  put_number(&usage, 3, tokens);
  put_number(finished, 1, FINISH_REASON_MAX_TOKENS);
  put_message(finished, 3, &usage);
}

// The ids of a sequence's next tokens, as every neuron tells them.
static void put_token_ids(Buffer *ids, const Sequence *s, u32 tokens) {
  for (u32 i = 0; i < tokens; i++) put_varint(ids, FIRST_TOKEN_ID + (s->total - s->left + i) % TOKEN_IDS);
}

// SessionResponse, column by column.
typedef struct {
  Buffer events, ids, texts, counts, token_ids, ends;
} Columns;

static size_t columns_size(const Columns *c) {
  return buffer_size(&c->events) + buffer_size(&c->ids) + buffer_size(&c->texts) +
         buffer_size(&c->counts) + buffer_size(&c->token_ids) + buffer_size(&c->ends);
}

static void add_started(Columns *c, u64 id) {
  static Buffer event, response;
  buffer_clear(&event);
  buffer_clear(&response);
  build_started(&response);
  put_number(&event, 1, id);
  put_message(&event, 2, &response);
  put_message(&c->events, 1, &event);
}

static void add_text(Columns *c, const Sequence *s, u32 tokens) {
  static char text[MESSAGE_SIZE];
  put_varint(&c->ids, s->id);
  put_bytes(&c->texts, 3, text, sequence_text(s, tokens, text));
  put_varint(&c->counts, tokens);
  put_token_ids(&c->token_ids, s, tokens);
}

static void add_end(Columns *c, const Sequence *s) {
  static Buffer end, finished;
  buffer_clear(&end);
  buffer_clear(&finished);
  build_finished(&finished, s->total);
  put_number(&end, 1, s->id);
  put_message(&end, 2, &finished);
  put_message(&c->ends, 5, &end);
}

static void add_sequence(Columns *c, Sequence *s) {
  u32 tokens = sequence_sendable(s);
  if (!s->announced) {
    s->announced = true;
    add_started(c, s->id);
  }
  if (tokens == 0) return;
  add_text(c, s, tokens);
  s->left -= tokens;
  s->due -= tokens;
  s->credit -= tokens;
  if (s->left == 0) {
    add_end(c, s);
    sequence_end(s);
  }
}

static void write_session(Stream *stream) {
  static Columns columns;
  static Buffer message;
  int64_t room = send_window(stream) - 64;
  if (room > MESSAGE_SIZE / 2) room = MESSAGE_SIZE / 2;
  for (Sequence *s = stream->sequences, *next; s; s = next) {
    next = s->next;
    size_t most = (size_t)sequence_sendable(s) * (STAMPED_TOKEN_SIZE + TOKEN_ID_SIZE) + 128;
    if ((int64_t)(columns_size(&columns) + most) > room) break;
    add_sequence(&columns, s);
  }
  if (columns_size(&columns) == 0) return;
  buffer_put(&message, buffer_head(&columns.events), buffer_size(&columns.events));
  if (buffer_size(&columns.ids)) {
    put_message(&message, 2, &columns.ids);
    buffer_put(&message, buffer_head(&columns.texts), buffer_size(&columns.texts));
    put_message(&message, 4, &columns.counts);
    put_message(&message, 6, &columns.token_ids);
  }
  buffer_put(&message, buffer_head(&columns.ends), buffer_size(&columns.ends));
  put_grpc_message(stream, &message);
  buffer_clear(&columns.events);
  buffer_clear(&columns.ids);
  buffer_clear(&columns.texts);
  buffer_clear(&columns.counts);
  buffer_clear(&columns.token_ids);
  buffer_clear(&columns.ends);
  buffer_clear(&message);
}

static void write_generate(Stream *stream) {
  static Buffer message, part, token_ids;
  static char text[MESSAGE_SIZE];
  Sequence *s = stream->sequences;
  u32 tokens = s ? sequence_sendable(s) : 0;
  if (tokens == 0 || send_window(stream) < (int64_t)tokens * (STAMPED_TOKEN_SIZE + TOKEN_ID_SIZE) + 512)
    return;
  if (!s->announced) {
    s->announced = true;
    build_started(&message);
    put_grpc_message(stream, &message);
    buffer_clear(&message);
  }
  put_bytes(&part, 1, text, sequence_text(s, tokens, text));
  put_token_ids(&token_ids, s, tokens);
  put_message(&part, 2, &token_ids);
  put_message(&message, 4, &part);  // GenerateResponse.text
  put_grpc_message(stream, &message);
  buffer_clear(&message);
  buffer_clear(&part);
  buffer_clear(&token_ids);
  s->left -= tokens;
  s->due -= tokens;
  if (s->left > 0) return;
  build_finished(&part, s->total);
  put_message(&message, 7, &part);  // GenerateResponse.finished
  put_grpc_message(stream, &message);
  buffer_clear(&message);
  buffer_clear(&part);
  put_trailers(stream, 0);
  stream_close(stream);
}

static void grpc_write(Stream *stream) {
  if (stream->kind == STREAM_SESSION) write_session(stream);
  if (stream->kind == STREAM_GENERATE) write_generate(stream);
}

// What a client says.

static void start_in_session(Stream *stream, const u8 *data, size_t size) {
  Reader r = reader(data, size);
  u64 id = 0;
  u32 credit = 0;
  const u8 *request = NULL;
  size_t request_size = 0;
  while (read_field(&r)) {
    if (r.field == 1) id = r.number;
    if (r.field == 2) request = r.bytes, request_size = r.size;
    if (r.field == 3) credit = (u32)r.number;
  }
  if (request) sequence_begin(stream, id, max_tokens(request, request_size), credit, request, request_size);
}

static void cancel(Stream *stream, u64 id) {
  Sequence *s = sequence_find(stream, id);
  if (s) sequence_end(s);
}

static void add_credit(Stream *stream, const u8 *data, size_t size) {
  Reader r = reader(data, size);
  u64 id = 0, tokens = 0;
  while (read_field(&r)) {
    if (r.field == 1) id = r.number;
    if (r.field == 2) tokens = r.number;
  }
  Sequence *s = sequence_find(stream, id);
  if (s) s->credit += (u32)tokens;
}

static void session_message(Stream *stream, const u8 *data, size_t size) {
  Reader r = reader(data, size);
  while (read_field(&r)) {
    if (r.field == 1 && r.bytes) start_in_session(stream, r.bytes, r.size);
    if (r.field == 3 && r.bytes) add_credit(stream, r.bytes, r.size);
    if (r.field != 2) continue;
    if (!r.bytes) cancel(stream, r.number);
    Reader ids = reader(r.bytes, r.size);
    while (r.bytes && ids.at < ids.end) cancel(stream, read_varint(&ids));
  }
}

static void generate_message(Stream *stream, const u8 *data, size_t size) {
  sequence_begin(stream, 0, max_tokens(data, size), UINT32_MAX, data, size);
}

static void take_messages(Stream *stream) {
  while (buffer_size(&stream->in) >= 5) {
    u8 *head = buffer_head(&stream->in);
    size_t size = get_u32(head + 1);
    if (buffer_size(&stream->in) < size + 5) return;
    if (stream->kind == STREAM_SESSION) session_message(stream, head + 5, size);
    if (stream->kind == STREAM_GENERATE) generate_message(stream, head + 5, size);
    stream->in.start += size + 5;
  }
}

static Stream *find_stream(Connection *c, u32 id) {
  for (Stream *s = c->streams; s; s = s->next)
    if (s->id == id) return s;
  return NULL;
}

static void give_window(Connection *c, u32 id, u32 *consumed, u32 more) {
  *consumed += more;
  if (*consumed < RECEIVE_WINDOW / 4) return;
  put_frame(c, 4, WINDOW_UPDATE, 0, id);
  put_u32(c, *consumed);
  *consumed = 0;
}

static void on_data(Connection *c, u32 id, u8 flags, const u8 *p, u32 size) {
  give_window(c, 0, &c->consumed, size);
  Stream *s = find_stream(c, id);
  if (!s) return;
  give_window(c, id, &s->consumed, size);
  u32 padding = flags & PADDED ? p[0] : 0, skip = flags & PADDED ? 1 : 0;
  if (padding + skip > size) return;
  buffer_put(&s->in, p + skip, size - skip - padding);
  take_messages(s);
  if (!(flags & END_STREAM) || s->kind != STREAM_SESSION) return;
  put_trailers(s, 0);
  stream_close(s);
}

static void on_headers(Connection *c, u32 id, const u8 *p, u32 size) {
  Stream *s = stream_open(c, id);
  if (memmem(p, size, "NeuronService/Session", 21))
    s->kind = STREAM_SESSION;
  else if (memmem(p, size, "NeuronService/Generate", 22))
    s->kind = STREAM_GENERATE;
  if (s->kind == STREAM_NEW)
    refuse(s);
  else
    open_response(s);
}

static void on_settings(Connection *c, const u8 *p, u32 size) {
  for (u32 i = 0; i + 6 <= size; i += 6) {
    u32 id = (u32)p[i] << 8 | p[i + 1], value = get_u32(p + i + 2);
    if (id != 4) continue;  // INITIAL_WINDOW_SIZE
    for (Stream *s = c->streams; s; s = s->next) s->window += (int64_t)value - c->initial_window;
    c->initial_window = value;
  }
  put_frame(c, 0, SETTINGS, ACK, 0);
}

static void on_window_update(Connection *c, u32 id, u32 more) {
  Stream *s = id ? find_stream(c, id) : NULL;
  if (!id) c->window += more;
  if (s) s->window += more;
}

static void on_frame(Connection *c, u8 type, u8 flags, u32 id, const u8 *p, u32 size) {
  Stream *s;
  switch (type) {
    case DATA: on_data(c, id, flags, p, size); break;
    case HEADERS: on_headers(c, id, p, size); break;
    case RST_STREAM: if ((s = find_stream(c, id))) stream_close(s); break;
    case SETTINGS: if (!(flags & ACK)) on_settings(c, p, size); break;
    case WINDOW_UPDATE: on_window_update(c, id, get_u32(p) & 0x7fffffff); break;
    case PING:
      if (flags & ACK) break;
      put_frame(c, 8, PING, ACK, 0);
      buffer_put(&c->out, p, 8);
      break;
    default: break;
  }
}

static void greet(Connection *c) {
  c->greeted = true;
  c->window = c->initial_window = 65535;
  put_frame(c, 18, SETTINGS, 0, 0);
  buffer_put(&c->out, "\0\1\0\0\0\0", 6);          // HEADER_TABLE_SIZE 0
  buffer_put(&c->out, "\0\3\0\0\x10\0", 6);        // MAX_CONCURRENT_STREAMS 4096
  buffer_put(&c->out, "\0\4\1\0\0\0", 6);          // INITIAL_WINDOW_SIZE RECEIVE_WINDOW
  put_frame(c, 4, WINDOW_UPDATE, 0, 0);
  put_u32(c, RECEIVE_WINDOW - 65535);
}

static void grpc_received(Connection *c) {
  if (!c->greeted) {
    if (buffer_size(&c->in) < 24) return;
    c->in.start += 24;  // the client's preface
    greet(c);
  }
  while (buffer_size(&c->in) >= 9) {
    u8 *h = buffer_head(&c->in);
    u32 size = (u32)h[0] << 16 | (u32)h[1] << 8 | h[2];
    if (buffer_size(&c->in) < 9 + (size_t)size) return;
    on_frame(c, h[3], h[4], get_u32(h + 5) & 0x7fffffff, h + 9, size);
    c->in.start += 9 + (size_t)size;
  }
}

const Protocol grpc_protocol = {grpc_received, grpc_write};
