// The facts of one neuron, instance, model or request.

import { NONE, ago, bytes, milliseconds, moment, seconds, share, tokens, whole } from "../app/format.js";
import { askUnload, dialog, drawer, pin, unpin } from "../app/operations.js";
import { State, html } from "../app/parts.js";
import { mayOperate, now, rates } from "../app/state.js";

function Facts({ of }) {
  const shown = of.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">${shown.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

const time = (at) => at && html`<span title=${moment(at)} tabindex="0">${ago(at, now.value)}</span>`;
const list = (words) => (words?.length ? words.join(", ") : null);

export function NeuronDetails({ one }) {
  const labels = Object.entries(one.labels).map(([name, value]) => `${name}=${value}`);
  return html`<section><${Facts} of=${[
      ["State", html`<${State} of=${one.state} />`],
      ["Address", html`<code>${one.address}</code>`],
      ["Version", one.version], ["Engines", list(one.engines)], ["Labels", list(labels)],
    ]} /></section>
    ${one.devices.map((device) => html`<section key=${device.id}><h3>${device.name || device.id}</h3><${Facts} of=${[
      ["Id", html`<code>${device.id}</code>`],
      ["Memory", `${bytes(device.total - device.free)} of ${bytes(device.total)} used`],
      ["Usable", bytes(Math.max(0, device.free - device.reserved))],
      ["Reserved", device.reserved ? bytes(device.reserved) : null],
      ["Load", device.utilization != null ? share(device.utilization) : null],
      ["Temperature", device.temperature != null ? `${Math.round(device.temperature)} °C` : null],
      ["Power", device.power != null ? `${Math.round(device.power)} W` : null],
      ["Quarantined", device.quarantine],
    ]} /></section>`)}
    ${one.workers.filter((worker) => worker.last_words || worker.restarts).map((worker) => html`<section key=${worker.devices.join()}>
      <h3>Worker of ${list(worker.devices)}</h3>
      <${Facts} of=${[["State", worker.state], ["Restarts", worker.restarts]]} />
      ${worker.last_words && html`<p class="small muted">Last words</p><pre class="words">${worker.last_words}</pre>`}</section>`)}
    ${one.problems.length > 0 && html`<section><h3>It says</h3><ul class="small">${one.problems.map((words) => html`<li key=${words}>${words}</li>`)}</ul></section>`}
    ${one.stored.length > 0 && html`<section><h3>On its disk</h3><p class="small">${list(one.stored)}</p></section>`}`;
}

export function InstanceDetails({ held }) {
  const told = rates.value?.instances[held.id];
  const facts = Object.entries(held.facts);
  return html`<section>
      <${Facts} of=${[
        ["State", html`<${State} of=${held.squeezed ? "squeezed" : held.state} />`],
        ["Why", held.reason],
        ["Neuron", html`<button class="link" onClick=${() => (drawer.value = { kind: "neuron", name: held.neuron.name })}>${held.neuron.name}</button>`],
        ["Requests", `${held.active} of ${held.places || NONE} places`],
        ["Queue", `${held.queued} of ${held.queue_places || NONE}`],
        ["Speed", told ? `${told.tokens_per_second} tok/s` : null],
        ["From cache", told ? share(told.cached_share) : null],
        ["Cache", held.cache_total ? `${tokens(held.cache_used)} of ${tokens(held.cache_total)} tokens` : null],
        ["Context", held.context ? `${tokens(held.context)} tokens` : null],
        ["Memory", list(held.memory.map((one) => `${bytes(one.bytes)} on ${one.device}`))],
        ["Loaded", time(held.loaded_at)],
        ["Load took", held.load_seconds != null ? seconds(held.load_seconds) : null],
        ["Last used", time(held.last_used_at)],
        ["Engine", held.engine], ["Quantization", held.quantization], ["Can", list(held.capabilities)],
        ["Id", html`<code>${held.id}</code>`],
      ]} />
      <div class="buttons">
        <a class="button" href="#/playground?model=${encodeURIComponent(held.model)}">Chat with it</a>
        <button disabled=${!mayOperate.value} onClick=${() => askUnload(held.model, [held])}>Unload</button>
      </div></section>
    ${facts.length > 0 && html`<section><h3>Engine</h3><${Facts} of=${facts} /></section>`}`;
}

export function ModelDetails({ row }) {
  const at = row.held.map((one) => html`<li key=${one.id}><button class="link" onClick=${() => (drawer.value = { kind: "instance", id: one.id, neuron: one.neuron.name })}>${one.neuron.name}</button> <${State} of=${one.state} /></li>`);
  return html`<section>
      <${Facts} of=${[
        ["State", html`<${State} of=${row.state} />`],
        ["About", row.description],
        ["Also called", list(row.aliases)], ["Can", list(row.capabilities)],
        ["Context", row.context ? `${tokens(row.context)} tokens` : null],
        ["Files", row.bytes ? bytes(row.bytes) : null],
        ["Parameters", row.parameters], ["Quantization", row.quantization],
        ["Pinned", row.pinned ? "yes" : "no"], ["In models.toml", row.configured ? "yes" : "no, found on a disk"],
        ["Could run on", list(row.feasible) ?? "no neuron"],
      ]} />
      ${at.length > 0 && html`<h3>Loaded</h3><ul>${at}</ul>`}
      <div class="buttons">
        <a class="button" href="#/playground?model=${encodeURIComponent(row.model)}">Chat with it</a>
        <button onClick=${() => (drawer.value = { kind: "explain", model: row.model })}>Why?</button>
        <button disabled=${!mayOperate.value} onClick=${() => (dialog.value = { kind: "load", model: row.model })}>Load…</button>
        <button disabled=${!mayOperate.value} onClick=${() => (row.pinned ? unpin(row.model) : pin(row.model))}>${row.pinned ? "Unpin" : "Pin"}</button>
      </div></section>`;
}

export function RequestDetails({ one }) {
  const decode = one.first_token_ms != null ? one.elapsed_ms - one.first_token_ms : null;
  const speed = decode > 0 && one.completion_tokens > 1 ? `${(((one.completion_tokens - 1) * 1000) / decode).toFixed(1)} tok/s` : null;
  return html`<section><${Facts} of=${[
    ["Ended", html`<span title=${moment(one.ended_at)}>${ago(one.ended_at, now.value)}</span>`],
    ["Status", `${one.status}${one.reason ? ` ${one.reason}` : ""}`],
    ["Model", one.model], ["Asked for", one.asked !== one.model ? one.asked : null],
    ["Key", one.principal || "none"], ["Dialect", one.dialect], ["Streamed", one.stream ? "yes" : "no"],
    ["Neuron", one.neuron], ["Upstream", one.upstream], ["Attempts", one.attempts || null], ["Finish", one.finish_reason],
    ["Took", milliseconds(one.elapsed_ms)], ["In queue", one.queue_ms != null ? milliseconds(one.queue_ms) : null],
    ["First token", one.first_token_ms != null ? milliseconds(one.first_token_ms) : null], ["Speed", speed],
    ["Prompt", `${whole(one.prompt_tokens)} tokens`], ["From cache", one.prompt_tokens ? share(one.cached_tokens / one.prompt_tokens) : null],
    ["Answer", `${whole(one.completion_tokens)} tokens`], ["Reasoning", one.reasoning_tokens ? `${whole(one.reasoning_tokens)} tokens` : null],
    ["Request", html`<code>${one.request_id}</code>`], ["Instance", one.instance_id && html`<code>${one.instance_id}</code>`],
  ]} /></section>`;
}
