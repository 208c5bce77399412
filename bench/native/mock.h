// A mock engine behind two faces: NeuronService over gRPC, and an OpenAI server over HTTP.
//
// One thread, one epoll loop. A sequence's tokens fall due by its mode; what is due and has
// credit leaves with the next write of its connection, and a connection has one write
// outstanding at a time, so that a slow reader gets fuller messages and not more of them,
// as from a real neuron.
#pragma once
#include "common.h"

typedef struct Connection Connection;
typedef struct Stream Stream;

// Read from the prompt ("MODE=..."), since that passes through every gateway unchanged.
typedef enum {
  MODE_NOW,       // n: the whole answer is due at once
  MODE_LOCKSTEP,  // p: one token per interval, all sequences on the same tick
  MODE_SPREAD,    // s: one token per interval, ticks spread over the interval
} Mode;

typedef struct Sequence {
  struct Sequence *previous, *next;
  Stream *stream;
  u64 id;        // within its session; 0 elsewhere
  u32 total;     // tokens of the answer
  u32 left;      // not sent yet
  u32 due;       // of those: generated
  u32 credit;    // of those: may be sent
  u32 phase;     // tick of the interval on which its tokens fall due
  Mode mode;
  bool stamped;  // tokens carry the time
  bool announced;
} Sequence;

typedef enum { STREAM_NEW, STREAM_SESSION, STREAM_GENERATE, STREAM_HTTP } StreamKind;

// A place that sequences are written to: an HTTP/2 stream, or the one of an HTTP connection.
struct Stream {
  Stream *next;
  Connection *connection;
  u32 id;
  StreamKind kind;
  int64_t window;
  u32 consumed;
  bool client_done;
  Buffer in;
  Sequence *sequences;
};

typedef struct {
  void (*received)(Connection *);
  void (*write)(Stream *);  // sends what its sequences have due
} Protocol;

struct Connection {
  Connection *previous, *next;
  const Protocol *protocol;
  int fd;
  bool waits_for_writable, dead, greeted;
  int64_t window, initial_window;
  u32 consumed;
  Buffer in, out;
  Stream *streams;
};

extern const Protocol grpc_protocol, http_protocol;

// engine.c
Sequence *sequence_begin(Stream *stream, u64 id, u32 tokens, u32 credit, const u8 *prompt,
                         size_t prompt_size);
void sequence_end(Sequence *sequence);
Sequence *sequence_find(Stream *stream, u64 id);
u32 sequence_sendable(const Sequence *sequence);
size_t sequence_text(const Sequence *sequence, u32 tokens, char *text);
void engine_configure(u32 phases);
void engine_tick(Connection *all);
Stream *stream_open(Connection *connection, u32 id);
void stream_close(Stream *stream);
