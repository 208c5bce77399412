// Keeps `/ui/events` open: one stream per tab, none while it is hidden, and a fresh snapshot after
// every break.

import { ApiError, ask, events } from "./http.js";
import { apply, link } from "./state.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
const SILENCE = 25_000; // beats come every 10 s

let running = null; // ends the stream under way
let wake = () => {};

function told(state, error = null) {
  const since = link.peek().state === state ? link.peek().since : Date.now();
  link.value = { state, error, since };
}

async function once(signal) {
  const response = await ask("events", { signal });
  for await (const { name, data } of events(response, { silence: SILENCE })) {
    if (signal.aborted) return;
    if (name === "error") throw new ApiError(JSON.parse(data).error.message);
    if (data !== null) apply(name, JSON.parse(data));
    if (name === "snapshot") told("live");
  }
  throw new ApiError("The gateway has ended the stream.");
}

async function keep(signal) {
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    const began = Date.now();
    try {
      await once(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) {
        told("refused", error);
        return;
      }
      told(link.peek().state === "connecting" ? "connecting" : "lost", error);
      if (link.peek().state === "connecting") link.value = { ...link.peek(), error };
    }
    if (Date.now() - began > LONGEST_PAUSE) pause = FIRST_PAUSE;
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, pause);
    });
    pause = Math.min(LONGEST_PAUSE, pause * 2);
  }
}

// Begins anew: at the start, with another key, or when somebody does not want to wait.
export function connect() {
  running?.abort();
  running = new AbortController();
  if (link.peek().state === "refused") told("connecting");
  wake();
  keep(running.signal);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    running?.abort();
    running = null;
  } else if (!running && link.peek().state !== "refused") {
    connect();
  }
});
