// load --port P --connections C --seconds S [--warm W] [--tokens N] [--model M] [--mode pt]
//      [--whole] [--stamped] [--stagger S] [--header "name: value"] [--pids 1,2,3]
//
// A closed loop: every connection sends its next request when the last one is answered.
// Tokens are counted in the byte stream, so merged ones count right. Prints one JSON object
// about the window behind the warm-up, with the CPU time and the run-queue wait of the
// processes named by --pids, and its own, from /proc/PID/task/*/schedstat.
#include "common.h"

#include <dirent.h>
#include <signal.h>

enum { EVENTS = 512, RECEIVE_SIZE = 1 << 18, HEAD_SIZE = 1 << 16, MOST_PIDS = 256 };

// A log-linear histogram: 64 steps per power of two, exact below 64.
typedef struct {
  u64 count, most, buckets[4096];
} Histogram;

static void record(Histogram *h, u64 value) {
  int power = value < 64 ? 0 : 63 - __builtin_clzll(value);
  u64 index = value < 64 ? value : (u64)(power - 5) * 64 + ((value >> (power - 6)) & 63);
  h->buckets[index < 4096 ? index : 4095]++;
  h->count++;
  if (value > h->most) h->most = value;
}

static double quantile_us(const Histogram *h, double q) {
  u64 rank = (u64)(q * (double)h->count), seen = 0;
  for (u64 i = 0; i < 4096; i++) {
    seen += h->buckets[i];
    if (seen > rank) {
      double ns = i < 64 ? (double)i : (double)((64 + i % 64) << (i / 64 - 1));
      return ns / 1e3;
    }
  }
  return (double)h->most / 1e3;
}

typedef struct {
  double cpu_ns, wait_ns;
} Sched;

static Sched sched_of(int pid) {
  char path[600];
  Sched total = {0, 0};
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks) return total;
  for (struct dirent *task; (task = readdir(tasks));) {
    unsigned long cpu, wait;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, task->d_name);
    FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
    if (!file) continue;
    if (fscanf(file, "%lu %lu", &cpu, &wait) == 2) {
      total.cpu_ns += (double)cpu;
      total.wait_ns += (double)wait;
    }
    fclose(file);
  }
  closedir(tasks);
  return total;
}

typedef enum { IDLE, CONNECTING, HEAD, COUNTED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE } State;

typedef struct {
  int fd;
  State state;
  int status;
  char *head;
  u32 head_size;
  u64 remaining;  // of the body or of the chunk
  u64 asked_at, last_token_at;
  u64 connect_at;
  int matched;    // of " tok", then 4 for ':' and 5 for the stamp
  u64 stamp;
} Client;

static struct {
  int port, connections, tokens;
  double seconds, warm, stagger;
  const char *model, *mode, *header;
  bool whole, stamped;
  int pids[MOST_PIDS], pid_count;
} options = {.port = 8000, .connections = 1, .tokens = 64, .seconds = 2, .warm = 0.5,
             .model = "bench", .mode = "n", .header = ""};

static struct {
  Histogram first, gap, whole, delivery;
  u64 requests, tokens, bytes, errors, refused, reads;
} seen;

static Buffer request;
static int epoll;
static bool measuring;

static void build_request(void) {
  char body[2048], head[1024];
  int body_size = snprintf(
      body, sizeof body,
      "{\"model\": \"%s\", \"messages\": [{\"role\": \"system\", \"content\": \"You are a helpful "
      "assistant.\"}, {\"role\": \"user\", \"content\": \"MODE=%s%s lorem ipsum dolor sit amet, "
      "consectetur adipiscing elit, sed do eiusmod\"}], \"max_tokens\": %d, \"temperature\": 0.7, "
      "\"stream\": %s}",
      options.model, options.mode, options.stamped ? "t" : " ", options.tokens,
      options.whole ? "false" : "true");
  int head_size = snprintf(
      head, sizeof head,
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:%d\r\nAccept: application/json\r\n"
      "User-Agent: OpenAI/Python 3.54.0\r\nAuthorization: Bearer sk-bench\r\n"
      "Content-Type: application/json\r\nContent-Length: %d\r\n%s%s\r\n",
      options.port, body_size, options.header, *options.header ? "\r\n" : "");
  buffer_put(&request, head, (size_t)head_size);
  buffer_put(&request, body, (size_t)body_size);
}

static void ask(Client *c) {
  c->state = HEAD;
  c->head_size = 0;
  c->matched = 0;
  c->last_token_at = 0;
  c->asked_at = now_ns();
  size_t size = buffer_size(&request);
  if (send(c->fd, buffer_head(&request), size, MSG_NOSIGNAL) == (ssize_t)size) return;
  c->state = IDLE;
  if (measuring) seen.errors++;
}

static void dial(Client *c) {
  struct sockaddr_in address = loopback(options.port);
  if (c->fd >= 0) close(c->fd);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  c->state = CONNECTING;
  no_delay(c->fd);
  // Never blocks: a peer whose backlog is full would stop all the other connections too.
  connect(c->fd, (struct sockaddr *)&address, sizeof address);
  struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void connected(Client *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
  if (error) {
    seen.refused++;
    c->state = IDLE;
    close(c->fd);
    c->fd = -1;
    return;
  }
  ask(c);
}

static void on_token(Client *c, u64 now) {
  if (measuring) {
    seen.tokens++;
    if (c->last_token_at)
      record(&seen.gap, now - c->last_token_at);
    else
      record(&seen.first, now - c->asked_at);
  }
  c->last_token_at = now;
}

static void on_stamp(Client *c, u64 now) {
  if (measuring && now > c->stamp) record(&seen.delivery, now - c->stamp);
}

// Finds tokens and their stamps wherever they lie, also across reads.
static void scan(Client *c, const char *data, size_t size, u64 now) {
  int matched = c->matched;
  for (size_t i = 0; i < size; i++) {
    char ch = data[i];
    if (matched < TOKEN_SIZE) {
      matched = ch == TOKEN[matched] ? matched + 1 : ch == TOKEN[0];
      if (matched < TOKEN_SIZE) continue;
      on_token(c, now);
      c->stamp = 0;
      if (!options.stamped) matched = 0;
    } else if (matched == TOKEN_SIZE) {
      matched = ch == ':' ? TOKEN_SIZE + 1 : 0;
    } else if (ch == ';') {
      on_stamp(c, now);
      matched = 0;
    } else {
      c->stamp = c->stamp << 4 | (u64)(ch <= '9' ? ch - '0' : ch - 'a' + 10);
    }
  }
  c->matched = matched;
}

// Takes the head's bytes; returns how many of the given ones belonged to it.
static size_t take_head(Client *c, const char *data, size_t size) {
  size_t room = HEAD_SIZE - 1 - c->head_size, part = size < room ? size : room;
  u32 before = c->head_size;
  memcpy(c->head + c->head_size, data, part);
  c->head_size += (u32)part;
  c->head[c->head_size] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) return part;
  *end = 0;
  c->status = atoi(c->head + 9);
  const char *length = strcasestr(c->head, "\r\ncontent-length:");
  if (length) {
    c->state = COUNTED;
    c->remaining = (u64)atoll(length + 17);
  } else {
    c->state = strcasestr(c->head, "transfer-encoding: chunked") ? CHUNK_SIZE : UNTIL_CLOSE;
    c->remaining = 0;
  }
  return (size_t)(end + 4 - c->head) - before;
}

static void take_size_digit(Client *c, char ch) {
  if (ch == '\n') c->state = c->remaining ? CHUNK : TRAILER;
  int digit = ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1;
  if (digit >= 0) c->remaining = c->remaining * 16 + (u64)digit;
}

// Returns true when the answer is whole.
static bool take(Client *c, const char *data, size_t size, u64 now) {
  while (size) {
    size_t used = 1;
    switch (c->state) {
      case HEAD:
        used = take_head(c, data, size);
        if (c->state == COUNTED && c->remaining == 0) return true;
        break;
      case COUNTED:
      case CHUNK:
        used = size < c->remaining ? size : (size_t)c->remaining;
        scan(c, data, used, now);
        c->remaining -= used;
        if (c->remaining) break;
        if (c->state == COUNTED) return true;
        c->state = CHUNK_END;
        break;
      case CHUNK_SIZE: take_size_digit(c, *data); break;
      case CHUNK_END: if (*data == '\n') c->state = CHUNK_SIZE; break;
      case TRAILER: if (*data == '\n') return true; break;
      case UNTIL_CLOSE:
        used = size;
        scan(c, data, used, now);
        break;
      case IDLE:
      case CONNECTING: return false;
    }
    data += used;
    size -= used;
  }
  return false;
}

static void answered(Client *c, u64 now) {
  if (measuring) {
    seen.requests++;
    if (c->status != 200) seen.errors++;
    record(&seen.whole, now - c->asked_at);
  }
  ask(c);
}

static void receive(Client *c) {
  static char data[RECEIVE_SIZE];
  ssize_t got = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    if (measuring && c->state != IDLE) seen.errors++;
    dial(c);
    return;
  }
  u64 now = now_ns();
  if (measuring) {
    seen.bytes += (u64)got;
    seen.reads++;
  }
  if (take(c, data, (size_t)got, now)) answered(c, now);
}

static Sched sched_of_targets(void) {
  Sched total = {0, 0};
  for (int i = 0; i < options.pid_count; i++) {
    Sched one = sched_of(options.pids[i]);
    total.cpu_ns += one.cpu_ns;
    total.wait_ns += one.wait_ns;
  }
  return total;
}

static void print_histogram(const char *name, const Histogram *h) {
  printf(",\"%s_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name,
         quantile_us(h, 0.5), quantile_us(h, 0.9), quantile_us(h, 0.99), (double)h->most / 1e3);
}

static void report(double seconds, Sched target, Sched self) {
  printf("{\"connections\":%d,\"tokens_each\":%d,\"seconds\":%.3f,\"requests\":%lu,\"tokens\":%lu,"
         "\"bytes\":%lu,\"errors\":%lu,\"refused\":%lu,\"reads\":%lu,\"cpu_us\":%.0f,"
         "\"wait_us\":%.0f,\"load_cpu_us\":%.0f,\"load_wait_us\":%.0f",
         options.connections, options.tokens, seconds, seen.requests, seen.tokens, seen.bytes,
         seen.errors, seen.refused, seen.reads, target.cpu_ns / 1e3, target.wait_ns / 1e3,
         self.cpu_ns / 1e3, self.wait_ns / 1e3);
  print_histogram("first", &seen.first);
  print_histogram("gap", &seen.gap);
  print_histogram("whole", &seen.whole);
  print_histogram("delivery", &seen.delivery);
  puts("}");
}

static Sched difference(Sched later, Sched earlier) {
  return (Sched){later.cpu_ns - earlier.cpu_ns, later.wait_ns - earlier.wait_ns};
}

static void run(Client *clients) {
  u64 start = now_ns(), from = start + (u64)(options.warm * 1e9);
  u64 until = from + (u64)(options.seconds * 1e9), began = 0;
  int dialled = 0;
  Sched target = {0, 0}, self = {0, 0};
  struct epoll_event events[EVENTS];
  for (u64 now = start; now < until; now = now_ns()) {
    if (!measuring && now >= from) {
      measuring = true;
      began = now;
      target = sched_of_targets();
      self = sched_of(getpid());
    }
    while (dialled < options.connections && clients[dialled].connect_at <= now - start)
      dial(&clients[dialled++]);
    int ready = epoll_wait(epoll, events, EVENTS, dialled < options.connections ? 1 : 20);
    for (int i = 0; i < ready; i++) {
      Client *c = events[i].data.ptr;
      if (c->state == CONNECTING)
        connected(c);
      else
        receive(c);
    }
    for (int i = 0; i < dialled; i++)
      if (clients[i].state == IDLE) usleep(1000), dial(&clients[i]);
  }
  target = difference(sched_of_targets(), target);
  self = difference(sched_of(getpid()), self);
  report((double)(now_ns() - began) / 1e9, target, self);
}

static void read_pids(char *list) {
  for (char *pid = strtok(list, ","); pid && options.pid_count < MOST_PIDS; pid = strtok(NULL, ","))
    options.pids[options.pid_count++] = atoi(pid);
}

static void read_options(int count, char **values) {
  for (int i = 1; i < count; i++) {
    const char *name = values[i];
    if (!strcmp(name, "--whole")) { options.whole = true; continue; }
    if (!strcmp(name, "--stamped")) { options.stamped = true; continue; }
    char *value = ++i < count ? values[i] : "";
    if (!strcmp(name, "--port")) options.port = atoi(value);
    else if (!strcmp(name, "--connections")) options.connections = atoi(value);
    else if (!strcmp(name, "--tokens")) options.tokens = atoi(value);
    else if (!strcmp(name, "--seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "--warm")) options.warm = atof(value);
    else if (!strcmp(name, "--stagger")) options.stagger = atof(value);
    else if (!strcmp(name, "--model")) options.model = value;
    else if (!strcmp(name, "--mode")) options.mode = value;
    else if (!strcmp(name, "--header")) options.header = value;
    else if (!strcmp(name, "--pids")) read_pids(value);
    else { fprintf(stderr, "unknown option %s\n", name); exit(2); }
  }
}

int main(int count, char **values) {
  read_options(count, values);
  signal(SIGPIPE, SIG_IGN);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  build_request();
  Client *clients = calloc((size_t)options.connections, sizeof *clients);
  for (int i = 0; i < options.connections; i++) {
    clients[i].fd = -1;
    clients[i].head = malloc(HEAD_SIZE);
    clients[i].connect_at = (u64)(options.stagger * 1e9 * i / options.connections);
  }
  run(clients);
  return 0;
}
