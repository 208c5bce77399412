// The engine without a model: who has how many tokens due.
#include "mock.h"

enum { MOST_TOKENS = 1024 };  // of one sequence in one message

static u32 phase_count = 1;
static u32 next_phase;
static u64 ticks;

void engine_configure(u32 phases) { phase_count = phases ? phases : 1; }

static void read_mode(Sequence *s, const u8 *prompt, size_t size) {
  const u8 *found = memmem(prompt, size, "MODE=", 5);
  if (!found || found + 7 > prompt + size) return;
  if (found[5] == 'p') s->mode = MODE_LOCKSTEP;
  if (found[5] == 's') s->mode = MODE_SPREAD;
  s->stamped = found[6] == 't';
}

Sequence *sequence_begin(Stream *stream, u64 id, u32 tokens, u32 credit, const u8 *prompt,
                         size_t prompt_size) {
  Sequence *s = calloc(1, sizeof *s);
  s->stream = stream;
  s->id = id;
  s->total = s->left = tokens ? tokens : 1;
  s->credit = credit;
  read_mode(s, prompt, prompt_size);
  if (s->mode == MODE_SPREAD) s->phase = next_phase++ % phase_count;
  // The first token is there at once: the mock's own time to first token is nothing.
  s->due = s->mode == MODE_NOW ? s->total : 1;
  s->next = stream->sequences;
  if (s->next) s->next->previous = s;
  stream->sequences = s;
  return s;
}

void sequence_end(Sequence *s) {
  if (s->next) s->next->previous = s->previous;
  if (s->previous)
    s->previous->next = s->next;
  else
    s->stream->sequences = s->next;
  free(s);
}

Sequence *sequence_find(Stream *stream, u64 id) {
  for (Sequence *s = stream->sequences; s; s = s->next)
    if (s->id == id) return s;
  return NULL;
}

u32 sequence_sendable(const Sequence *s) {
  u32 tokens = s->due < s->credit ? s->due : s->credit;
  return tokens < MOST_TOKENS ? tokens : MOST_TOKENS;
}

size_t sequence_text(const Sequence *s, u32 tokens, char *text) {
  size_t size = 0;
  u64 now = s->stamped ? now_ns() : 0;
  for (u32 i = 0; i < tokens; i++) {
    if (s->stamped) {
      size += (size_t)sprintf(text + size, TOKEN ":%016llx;", (unsigned long long)now);
    } else {
      memcpy(text + size, TOKEN, TOKEN_SIZE);
      size += TOKEN_SIZE;
    }
  }
  return size;
}

void engine_tick(Connection *all) {
  u32 phase = (u32)(ticks++ % phase_count);
  for (Connection *c = all; c; c = c->next)
    for (Stream *stream = c->streams; stream; stream = stream->next)
      for (Sequence *s = stream->sequences; s; s = s->next)
        if (s->mode != MODE_NOW && s->phase == phase && s->due < s->left) s->due++;
}

Stream *stream_open(Connection *connection, u32 id) {
  Stream *s = calloc(1, sizeof *s);
  s->connection = connection;
  s->id = id;
  s->window = connection->initial_window;
  s->next = connection->streams;
  connection->streams = s;
  return s;
}

void stream_close(Stream *stream) {
  while (stream->sequences) sequence_end(stream->sequences);
  Stream **link = &stream->connection->streams;
  while (*link != stream) link = &(*link)->next;
  *link = stream->next;
  buffer_free(&stream->in);
  free(stream);
}
