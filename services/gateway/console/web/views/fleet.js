// The fleet: what is loaded where, who waits and why, what is broken, how fast it goes.

import { useSignal } from "../vendor/signals.js";
import { Line } from "../app/chart.js";
import { NONE, milliseconds, rate, share } from "../app/format.js";
import { Empty, Skeleton, State, html } from "../app/parts.js";
import { attention, history, instances, isReady, now, rates, visitor, waiting } from "../app/state.js";
import { Models } from "./models.js";
import { Neurons } from "./neurons.js";
import { drawer } from "../app/operations.js";
import { Orders, Waiting } from "./waiting.js";

export function Fleet({ search }) {
  const only = useSignal("");
  if (!isReady.value) return html`<div class="panel"><${Skeleton} lines="9" /></div>`;
  const shows = (part) => !only.value || only.value === part;
  return html`<h1 class="hidden">Fleet</h1>
    <${Summary} only=${only} />
    <div class="fleet">
      ${attention.value.length > 0 && shows("attention") && html`<div class="full of-attention"><${Attention} /></div>`}
      ${shows("ready") && html`<div class=${only.value ? "column full" : "column"}><${Neurons} search=${search} /></div>`}
      <div class=${only.value ? "column full" : "column"}>
        <${Orders} />
        ${shows("waiting") && html`<${Waiting} />`}
        ${shows("speed") && html`<${Speed} />`}
      </div>
      ${!only.value && html`<div class="full"><${Models} search=${search} /></div>`}
    </div>`;
}

function Summary({ only }) {
  const ready = instances.value.filter((one) => one.state === "ready" && one.neuron.state !== "lost").length;
  const told = rates.value ?? { first_token_ms: {} };
  const first = told.first_token_ms;
  const count = (name, value, part, tone = "") => html`<button aria-pressed=${only.value === part ? "true" : "false"}
    onClick=${() => (only.value = only.value === part ? "" : part)} title="Show only this">
    <span class="name">${name}</span><span class="value text ${tone}">${value}</span></button>`;
  const figure = (name, value, unit = "", more = "") => html`<div><span class="name">${name}</span>
    <span class="value">${value}${value !== NONE && unit && html`<small>${unit}</small>`}${more && html`<small class="wide">${more}</small>`}</span></div>`;
  const [ttft, unit = ""] = milliseconds(first.p50).split(" ");
  return html`<div class="summary" role="group" aria-label="Summary">
    ${count("Ready", ready, "ready")}
    ${count("Waiting", waiting.value.length, "waiting", waiting.value.length ? "tone-caution" : "")}
    ${count("Attention", attention.value.length, "attention", attention.value.length ? "tone-bad" : "")}
    ${figure("Speed", rate(told.tokens_per_second ?? null), "tok/s")}
    ${figure("First token", ttft, unit, first.p95 != null ? ` p95 ${milliseconds(first.p95)}` : "")}
    ${figure("From caches", share(told.cached_share ?? null))}
  </div>`;
}

function Attention() {
  return html`<section class="panel attention" aria-labelledby="attention">
    <header><h2 id="attention">Attention</h2><span class="count">${attention.value.length}</span></header>
    <ul class="rows">
      ${attention.value.map((one) => html`<li key=${one.key}>
        <${State} of=${one.kind} />
        <p><strong>${one.model ? `${one.model}${one.neuron ? ` on ${one.neuron}` : ""}` : one.neuron}</strong>
          <span class="muted"> ${one.words}</span></p>
        ${one.neuron
          ? html`<button class="plain" onClick=${() => (drawer.value = { kind: "neuron", name: one.neuron })}>Details</button>`
          : html`<button class="plain" onClick=${() => (drawer.value = { kind: "explain", model: one.model })}>Why?</button>`}
      </li>`)}
    </ul>
  </section>`;
}

function Speed() {
  const told = rates.value ?? { first_token_ms: {} };
  const points = [...history.value, [now.value, told.tokens_per_second, told.first_token_ms.p50]];
  return html`<section class="panel" aria-labelledby="speed">
    <header><h2 id="speed">Speed, 15 minutes</h2>${severalProcesses() && html`<span class="count">of this gateway process</span>`}</header>
    ${history.value.length < 2
      ? html`<${Empty} words="Nothing has been measured yet." />`
      : html`<div class="chart">
          <${Line} title="Tokens per second" points=${points.map(([t, v]) => [t, v])} end=${now.value} value=${rate(told.tokens_per_second)} format=${rate} />
          <${Line} title="First token, median" points=${points.map(([t, , v]) => [t, v])} end=${now.value}
            value=${milliseconds(told.first_token_ms.p50)} format=${milliseconds} kind="second" />
        </div>`}
  </section>`;
}

const severalProcesses = () => (visitor.value?.process.workers ?? 1) > 1;
