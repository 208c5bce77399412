// What the mock and the load generator share: time, growing buffers, sockets.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

// Every token of every mock is this, so that text can be counted as tokens on the wire.
// A stamped one is " tok:<16 hex digits of CLOCK_MONOTONIC in ns>;".
#define TOKEN " tok"
#define TOKEN_SIZE 4
#define STAMPED_TOKEN_SIZE 22

static inline u64 now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

// A byte queue: written at the end, consumed at the start.
typedef struct {
  u8 *data;
  size_t start, end, capacity;
} Buffer;

static inline size_t buffer_size(const Buffer *b) { return b->end - b->start; }

static inline u8 *buffer_head(const Buffer *b) { return b->data + b->start; }

// Makes room for `size` more bytes and one spare byte for a terminator.
static inline u8 *buffer_reserve(Buffer *b, size_t size) {
  if (b->start == b->end) b->start = b->end = 0;
  if (b->end + size + 1 > b->capacity && b->start > 0) {
    memmove(b->data, b->data + b->start, b->end - b->start);
    b->end -= b->start;
    b->start = 0;
  }
  if (b->end + size + 1 > b->capacity) {
    size_t capacity = b->capacity ? b->capacity : 4096;
    while (b->end + size + 1 > capacity) capacity *= 2;
    b->data = realloc(b->data, capacity);
    if (!b->data) abort();
    b->capacity = capacity;
  }
  return b->data + b->end;
}

static inline void buffer_put(Buffer *b, const void *data, size_t size) {
  if (size == 0) return;
  memcpy(buffer_reserve(b, size), data, size);
  b->end += size;
}

static inline void buffer_text(Buffer *b, const char *text) { buffer_put(b, text, strlen(text)); }

static inline void buffer_clear(Buffer *b) { b->start = b->end = 0; }

static inline void buffer_free(Buffer *b) {
  free(b->data);
  memset(b, 0, sizeof *b);
}

static inline void no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline struct sockaddr_in loopback(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}
