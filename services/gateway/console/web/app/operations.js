// What was ordered from this page, and how far it is. Nothing is shown as done before the gateway says so.

import { signal } from "../vendor/signals.js";
import { plural } from "./format.js";
import { ApiError, ask, events, post } from "./http.js";
import { say } from "./parts.js";

const SHOWN_SECONDS = 8;
let count = 0;

export const orders = signal([]); // {id, words, state, step, error, stop}
export const dialog = signal(null); // {kind, ...}: what is asked before an order is given
export const drawer = signal(null); // {kind, ...}: whose details are shown

function change(id, more) {
  orders.value = orders.peek().map((one) => (one.id === id ? { ...one, ...more } : one));
}

export function dismiss(id) {
  orders.value = orders.peek().filter((one) => one.id !== id);
}

function begin(words, more = {}) {
  const id = ++count;
  orders.value = [...orders.peek(), { id, words, state: "asked", step: null, error: null, stop: null, ...more }];
  say(`${words}: asked`);
  return id;
}

function ended(id, words) {
  change(id, { state: "done", stop: null, step: null, result: words });
  say(words);
  setTimeout(() => dismiss(id), SHOWN_SECONDS * 1000);
}

function failed(id, error) {
  change(id, { state: "failed", stop: null, error });
  say(error.message);
}

async function watched(name, body, words, { stop = null } = {}) {
  const leaving = new AbortController();
  const id = begin(words, { stop: stop && (() => leaving.abort()), stopWords: stop });
  try {
    const response = await ask(name, { body, signal: leaving.signal });
    for await (const event of events(response)) {
      const data = JSON.parse(event.data);
      if (event.name === "step") change(id, { state: "running", step: data });
      if (event.name === "error") throw new ApiError(data.error.message, { requestId: response.headers.get("x-request-id") });
      if (event.name === "done") return ended(id, `${words}: done`);
    }
    throw new ApiError("The gateway has ended the stream before it was done.");
  } catch (error) {
    if (error.name === "AbortError") ended(id, `${words}: given up, unless somebody else waits for it`);
    else failed(id, error);
  }
}

async function simple(name, body, words) {
  const id = begin(words);
  try {
    await post(name, body);
    ended(id, `${words}: done`);
  } catch (error) {
    failed(id, error);
  }
}

const where = (neuron) => (neuron ? ` on ${neuron}` : "");

export const load = (model, neuron = "") =>
  watched("load", { model, neuron, attached: true }, `Load ${model}${where(neuron)}`, {
    stop: "Gives the load up; it goes on where somebody else waits for the model.",
  });
export const unload = (model, neuron = "") => watched("unload", { model, neuron }, `Unload ${model}${where(neuron)}`);
export const drain = (neuron) => watched("drain", { neuron }, `Drain ${neuron}`);
export const pin = (model) => simple("pin", { model }, `Pin ${model}`);
export const unpin = (model) => simple("unpin", { model }, `Unpin ${model}`);
export const cordon = (neuron) => simple("cordon", { neuron }, `Cordon ${neuron}`);
export const uncordon = (neuron) => simple("uncordon", { neuron }, `Uncordon ${neuron}`);
export const reload = () => simple("reload", {}, "Reload the catalogue");

// An idle model goes at once; a busy one only after somebody has seen what that costs.
export function askUnload(model, held) {
  const busy = held.reduce((sum, one) => sum + one.active + one.queued, 0);
  const neuron = held.length === 1 ? held[0].neuron.name : "";
  if (busy) dialog.value = { kind: "unload", model, neuron, busy };
  else unload(model, neuron);
}

export function stepWords(step) {
  if (!step) return "";
  if (step.kind === "queued") return step.reason || "Waits for its turn";
  if (step.kind === "evicting") return `Evicts ${step.victims.join(", ")} on ${step.neuron}`;
  if (step.kind === "loading") return `Loads on ${step.neuron}`;
  if (step.kind === "placed") return `Placed on ${step.neuron}`;
  if (step.instances_left != null)
    return `${plural(step.instances_left, "model")} and ${plural(step.active_requests_left, "request")} left`;
  return "";
}
