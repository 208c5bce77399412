// mock --grpc-port P --http-port Q [--interval-us 20000] [--phases 20]
//
// Listens on loopback; prints one line when it does.
#include "mock.h"

#include <signal.h>
#include <sys/timerfd.h>

enum { EVENTS = 512, RECEIVE_SIZE = 131072 };

static int epoll;
static Connection *connections;

static void watch(int fd, u32 events, void *tag, int operation) {
  struct epoll_event event = {.events = events, .data.ptr = tag};
  if (epoll_ctl(epoll, operation, fd, &event) != 0) perror("epoll_ctl");
}

typedef struct {
  int fd;
  const Protocol *protocol;
} Listener;

static void listen_on(Listener *l, int port, const Protocol *protocol) {
  int one = 1;
  struct sockaddr_in address = loopback(port);
  l->protocol = protocol;
  l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(l->fd, (struct sockaddr *)&address, sizeof address) || listen(l->fd, 4096)) {
    perror("listen");
    exit(1);
  }
  watch(l->fd, EPOLLIN, l, EPOLL_CTL_ADD);
}

static void accept_all(Listener *l) {
  for (int fd; (fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    Connection *c = calloc(1, sizeof *c);
    no_delay(fd);
    c->fd = fd;
    c->protocol = l->protocol;
    c->next = connections;
    if (c->next) c->next->previous = c;
    connections = c;
    watch(fd, EPOLLIN, c, EPOLL_CTL_ADD);
  }
}

static void hang_up(Connection *c) {
  close(c->fd);
  c->dead = true;
  while (c->streams) stream_close(c->streams);
}

static void sweep(void) {
  for (Connection *c = connections, *next; c; c = next) {
    next = c->next;
    if (!c->dead) continue;
    if (c->next) c->next->previous = c->previous;
    if (c->previous)
      c->previous->next = c->next;
    else
      connections = c->next;
    buffer_free(&c->in);
    buffer_free(&c->out);
    free(c);
  }
}

static void receive(Connection *c) {
  u8 *room = buffer_reserve(&c->in, RECEIVE_SIZE);
  ssize_t got = recv(c->fd, room, RECEIVE_SIZE, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    hang_up(c);
    return;
  }
  c->in.end += (size_t)got;
  c->protocol->received(c);
}

static void flush(Connection *c) {
  while (buffer_size(&c->out)) {
    ssize_t sent = send(c->fd, buffer_head(&c->out), buffer_size(&c->out), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      if (!c->waits_for_writable) watch(c->fd, EPOLLIN | EPOLLOUT, c, EPOLL_CTL_MOD);
      c->waits_for_writable = true;
      return;
    }
    if (sent < 0) {
      hang_up(c);
      return;
    }
    c->out.start += (size_t)sent;
  }
  if (c->waits_for_writable) watch(c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
  c->waits_for_writable = false;
}

// One write outstanding: what falls due meanwhile is packed into the next one.
static void write_due(Connection *c) {
  if (c->dead || c->waits_for_writable) return;
  for (Stream *stream = c->streams, *next; stream; stream = next) {
    next = stream->next;
    c->protocol->write(stream);
  }
  if (c->protocol == &http_protocol && !c->streams) c->protocol->received(c);  // pipelined
  flush(c);
}

static int start_timer(long interval_us, long phases) {
  u64 ns = (u64)interval_us * 1000 / (u64)phases;
  struct timespec every = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
  struct itimerspec when = {every, every};
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  timerfd_settime(fd, 0, &when, NULL);
  return fd;
}

static long option(int count, char **values, const char *name, long otherwise) {
  for (int i = 1; i + 1 < count; i++)
    if (strcmp(values[i], name) == 0) return atol(values[i + 1]);
  return otherwise;
}

int main(int count, char **values) {
  static Listener grpc, http;
  long phases = option(count, values, "--phases", 20);
  signal(SIGPIPE, SIG_IGN);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  engine_configure((u32)phases);
  listen_on(&grpc, (int)option(count, values, "--grpc-port", 0), &grpc_protocol);
  listen_on(&http, (int)option(count, values, "--http-port", 0), &http_protocol);
  int timer = start_timer(option(count, values, "--interval-us", 20000), phases);
  watch(timer, EPOLLIN, &timer, EPOLL_CTL_ADD);
  puts("listening");
  fflush(stdout);
  for (struct epoll_event events[EVENTS];;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      void *tag = events[i].data.ptr;
      u64 ticks = 0;
      if (tag == &timer) {
        if (read(timer, &ticks, sizeof ticks) != sizeof ticks) continue;
        while (ticks--) engine_tick(connections);
      } else if (tag == &grpc || tag == &http) {
        accept_all(tag);
      } else {
        Connection *c = tag;
        if (!c->dead && events[i].events & EPOLLOUT) flush(c);
        if (!c->dead && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
      }
    }
    for (Connection *c = connections; c; c = c->next) write_due(c);
    sweep();
  }
}
