// What the page knows: filled by the stream alone, so that nothing is shown before it is true.

import { batch, computed, signal } from "../vendor/signals.js";

export const link = signal({ state: "connecting", error: null, since: Date.now() });
export const visitor = signal(null);
export const neurons = signal(new Map()); // name -> signal of the neuron
export const models = signal([]);
export const pending = signal({ placements: [], problem: "" });
export const registry = signal({ followed: true, known: true, settling: false });
export const rates = signal(null);
export const history = signal([]);
export const requests = signal([]);
export const now = signal(Date.now() / 1000);
export const heardAt = signal(0);

const MOST_REQUESTS = 500;
const HISTORY_SECONDS = 15 * 60;
let skew = 0; // the gateway's clock less this one

setInterval(() => {
  now.value = Date.now() / 1000 + skew;
}, 1000);

export const isReady = computed(() => visitor.value !== null);
export const mayOperate = computed(
  () => visitor.value?.console === "operate" && !visitor.value.operations_refused && link.value.state === "live",
);
export const whyNot = computed(() => {
  if (link.value.state !== "live") return "The page has lost the gateway";
  if (visitor.value?.operations_refused) return visitor.value.operations_refused;
  return visitor.value?.console === "operate" ? "" : 'This key has console = "view"';
});

export function apply(name, data) {
  heardAt.value = Date.now();
  batch(() => handlers[name]?.(data));
}

const handlers = {
  snapshot(told) {
    skew = told.visitor.now - Date.now() / 1000;
    now.value = told.visitor.now;
    visitor.value = told.visitor;
    history.value = told.visitor.history;
    requests.value = told.visitor.requests;
    // signals are kept, so that no row is drawn anew that did not change
    const kept = new Map();
    for (const one of told.neurons) kept.set(one.name, renewed(neurons.peek().get(one.name), one));
    neurons.value = kept;
    models.value = told.models;
    pending.value = told.pending;
    registry.value = told.registry;
    rates.value = told.rates;
  },
  neuron(one) {
    const known = neurons.peek().get(one.name);
    if (known) known.value = one;
    else neurons.value = new Map([...neurons.peek(), [one.name, signal(one)]].sort(([a], [b]) => (a < b ? -1 : 1)));
  },
  neuron_removed({ name }) {
    const kept = new Map(neurons.peek());
    kept.delete(name);
    neurons.value = kept;
  },
  catalogue(told) {
    models.value = told;
  },
  pending(told) {
    pending.value = told;
  },
  registry(told) {
    registry.value = told;
  },
  rates(told) {
    rates.value = told;
    const points = history.peek();
    const time = Math.round(now.peek());
    const last = points.at(-1)?.[0] ?? 0;
    if (time - last >= 5) {
      const fresh = points.filter(([at]) => at > time - HISTORY_SECONDS);
      history.value = [...fresh, [time, told.tokens_per_second, told.first_token_ms.p50]];
    }
  },
  request(told) {
    ended = [...told.requests.toReversed(), ...ended].slice(0, MOST_REQUESTS);
    shown ??= setTimeout(show, 1000); // a busy gateway ends more than anybody reads
  },
};

let ended = [];
let shown = null;

function show() {
  shown = null;
  const known = new Set(requests.peek().map((one) => one.number));
  requests.value = [...ended.filter((one) => !known.has(one.number)), ...requests.peek()].slice(0, MOST_REQUESTS);
  ended = [];
}

function renewed(known, value) {
  if (!known) return signal(value);
  if (JSON.stringify(known.peek()) !== JSON.stringify(value)) known.value = value;
  return known;
}

// Every instance with its neuron, and what follows from all of them.
export const instances = computed(() =>
  [...neurons.value.values()].flatMap((one) => one.value.instances.map((held) => ({ ...held, neuron: one.value }))),
);

export const waiting = computed(() => pending.value.placements.filter((one) => !one.problem));

export const attention = computed(() => {
  const found = [];
  for (const { value: one } of neurons.value.values()) {
    if (one.state === "lost")
      found.push({ key: `lost ${one.name}`, kind: "lost", neuron: one.name, words: "Its lease has lapsed; nothing is sent there." });
    for (const device of one.devices)
      if (device.quarantine)
        found.push({ key: `q ${one.name} ${device.id}`, kind: "quarantined", neuron: one.name, words: `${device.name || device.id}: ${device.quarantine}` });
    for (const held of one.instances) {
      const at = { neuron: one.name, model: held.model };
      if (held.state === "failed") found.push({ key: held.id, kind: "failed", words: held.reason || "It gave no reason.", ...at });
      else if (held.state === "recovering" && one.state !== "lost") found.push({ key: held.id, kind: "recovering", words: held.reason || "Its worker died and is started again.", ...at });
      else if (held.squeezed) found.push({ key: held.id, kind: "squeezed", words: "Others have taken the memory that it needs to serve.", ...at });
    }
  }
  for (const one of pending.value.placements)
    if (one.problem) found.push({ key: `p ${one.model}`, kind: "failed", model: one.model, words: one.problem });
  return found;
});

export const modelRows = computed(() => {
  const known = new Map(models.value.map((one) => [one.model, { ...one, held: [] }]));
  for (const held of instances.value) {
    if (!known.has(held.model))
      known.set(held.model, { model: held.model, aliases: [], capabilities: held.capabilities, context: held.context, feasible: [], held: [], bytes: null, pinned: false });
    known.get(held.model).held.push(held);
  }
  const waits = new Map(waiting.value.map((one) => [one.model, one]));
  return [...known.values()].map((row) => ({ ...row, waits: waits.get(row.model) ?? null, state: stateOf(row, waits.get(row.model)) }));
});

function stateOf(row, waits) {
  const has = (state) => row.held.some((one) => one.state === state && one.neuron.state !== "lost");
  if (has("ready")) return "ready";
  for (const state of ["loading", "recovering", "draining", "unloading"]) if (has(state)) return state;
  if (waits) return "waiting";
  return has("failed") ? "failed" : row.feasible?.length || row.bytes ? "disk" : "absent";
}
