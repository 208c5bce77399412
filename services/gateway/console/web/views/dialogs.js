// What is asked before an order is given.

import { useState } from "../vendor/hooks.js";
import { plural } from "../app/format.js";
import { dialog, drain, load, unload } from "../app/operations.js";
import { Dialog, html } from "../app/parts.js";
import { modelRows, neurons } from "../app/state.js";

const close = () => (dialog.value = null);

export function Dialogs() {
  const asked = dialog.value;
  if (!asked) return null;
  const kinds = { load: LoadDialog, unload: UnloadDialog, drain: DrainDialog, keys: KeysDialog };
  return html`<${kinds[asked.kind]} ...${asked} />`;
}

function LoadDialog({ model, neuron = "" }) {
  const [where, setWhere] = useState(neuron);
  const feasible = new Set(modelRows.value.find((one) => one.model === model)?.feasible ?? []);
  const all = [...neurons.value.values()].map((one) => one.value).filter((one) => one.state !== "lost");
  const begin = (event) => {
    event.preventDefault();
    load(model, where);
    close();
  };
  return html`<${Dialog} title="Load ${model}" onClose=${close}>
    <label class="field">Where<select value=${where} onChange=${(event) => setWhere(event.target.value)} autofocus>
      <option value="">Anywhere: placement decides</option>
      ${all.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}${feasible.has(one.name) ? "" : " (it may not fit)"}</option>`)}
    </select></label>
    <p class="small muted">Models that are idle may be evicted for it. “Why?” shows which.</p>
    <footer><button onClick=${close}>Cancel</button><button class="primary" onClick=${begin}>Load</button></footer>
  </${Dialog}>`;
}

function UnloadDialog({ model, neuron, busy }) {
  const go = () => {
    unload(model, neuron);
    close();
  };
  return html`<${Dialog} title="Unload ${model}?" onClose=${close}>
    <p>${plural(busy, "request")} ${busy === 1 ? "is" : "are"} at work${neuron ? ` on ${neuron}` : ""}. They may end within the drain time of the fleet; what still runs then ends with an error. Nothing new is taken meanwhile.</p>
    <footer><button autofocus onClick=${close}>Keep</button><button class="danger" onClick=${go}>Unload</button></footer>
  </${Dialog}>`;
}

function DrainDialog({ neuron }) {
  const one = neurons.value.get(neuron)?.value;
  const held = one?.instances ?? [];
  const busy = held.reduce((sum, each) => sum + each.active + each.queued, 0);
  const go = () => {
    drain(neuron);
    close();
  };
  return html`<${Dialog} title="Drain ${neuron}?" onClose=${close}>
    <p>It takes no new models and unloads what it holds: ${held.length ? held.map((each) => each.model).join(", ") : "nothing"}.
      ${busy > 0 && ` ${plural(busy, "request")} may end first.`}</p>
    <p class="small muted">“Uncordon” lets models on again, and brings none back.</p>
    <footer><button autofocus onClick=${close}>Keep</button><button class="danger" onClick=${go}>Drain</button></footer>
  </${Dialog}>`;
}

const KEYS = [
  ["/", "search"], ["g then f, r, u, p", "fleet, requests, usage, playground"], ["↑ ↓", "rows"], ["Enter", "details of a row"],
  ["l", "load its model"], ["u", "unload it"], ["e", "explain it"], ["d", "drain its neuron"], ["Esc", "close"], ["?", "this list"],
];

function KeysDialog() {
  const [on, setOn] = useState(localStorage.getItem("cortex.shortcuts") !== "off");
  const change = (event) => {
    setOn(event.target.checked);
    localStorage.setItem("cortex.shortcuts", event.target.checked ? "on" : "off");
  };
  return html`<${Dialog} title="Keyboard" onClose=${close}>
    <dl class="facts">${KEYS.map(([keys, what]) => html`<dt key=${keys}><kbd>${keys}</kbd></dt><dd>${what}</dd>`)}</dl>
    <label class="tick"><input type="checkbox" checked=${on} onChange=${change} /> Single keys are shortcuts</label>
    <footer><button class="primary" autofocus onClick=${close}>Close</button></footer>
  </${Dialog}>`;
}
