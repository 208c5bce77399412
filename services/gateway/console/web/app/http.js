// Asks the gateway: the key, errors in its own words, and streams of server-sent events.
// EventSource is not used: it sends no key.

const STORED = "cortex.key";

export const key = {
  get: () => sessionStorage.getItem(STORED) ?? "",
  set: (value) => (value ? sessionStorage.setItem(STORED, value) : sessionStorage.removeItem(STORED)),
};

export class ApiError extends Error {
  constructor(message, { status = 0, requestId = "", field = null } = {}) {
    super(message);
    this.status = status;
    this.requestId = requestId;
    this.field = field;
  }
}

function headers(more) {
  const found = { ...more };
  if (key.get()) found.authorization = `Bearer ${key.get()}`;
  return found;
}

async function failure(response) {
  let told = null;
  try {
    told = (await response.json()).error;
  } catch {
    // a proxy's own page
  }
  return new ApiError(told?.message ?? `The gateway answered ${response.status}.`, {
    status: response.status,
    requestId: response.headers.get("x-request-id") ?? "",
    field: told?.param ?? null,
  });
}

export async function ask(path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: headers(body === undefined ? {} : { "content-type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The gateway cannot be reached.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function post(path, body) {
  return (await ask(path, { body })).json();
}

// The events of an answer as {name, data, comment}; `silence` ends a stream that says nothing so long.
export async function* events(response, { silence = 0 } = {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await withLimit(reader.read(), silence);
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  let name = "message", data = null, comment = null;
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith(":")) comment = line.slice(1).trim();
    else if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data = (data === null ? "" : `${data}\n`) + line.slice(5).replace(/^ /, "");
  }
  return data === null && comment === null ? null : { name, data, comment };
}

function withLimit(promise, milliseconds) {
  if (!milliseconds) return promise;
  let timer;
  const limit = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new ApiError("The stream has fallen silent.")), milliseconds);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}
