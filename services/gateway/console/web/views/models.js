// Every model that clients may name.

import { NONE, ago, bytes, plural, tokens } from "../app/format.js";
import { askUnload, dialog, drawer, pin, reload, unpin } from "../app/operations.js";
import { Empty, State, html } from "../app/parts.js";
import { mayOperate, modelRows, now, whyNot } from "../app/state.js";

export function Models({ search }) {
  const wanted = search.value.trim().toLowerCase();
  const rows = modelRows.value.filter((one) => !wanted || [one.model, ...one.aliases].some((name) => name.toLowerCase().includes(wanted)));
  return html`<section class="panel models" aria-labelledby="models">
    <header><h2 id="models">Models</h2><span class="count">${wanted ? `${rows.length} of ${modelRows.value.length}` : rows.length}</span><span class="gap"></span>
      <button class="plain" disabled=${!mayOperate.value} title=${mayOperate.value ? "Reads models.toml again" : whyNot.value} onClick=${reload}>Reload catalogue</button></header>
    ${modelRows.value.length === 0 && html`<${Empty} words="No model is known. Name one in models.toml, or put a GGUF file where a neuron looks:" command="cortex models" />`}
    ${modelRows.value.length > 0 && rows.length === 0 && html`<${Empty} words="No model has “${wanted}” in its name." />`}
    ${rows.length > 0 && html`<div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">Where</th><th scope="col" class="number">Context</th>
        <th scope="col" class="number">Size</th><th scope="col" class="number">Last used</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${rows.map((row) => html`<${Row} key=${row.model} row=${row} />`)}</tbody>
    </table></div>`}
  </section>`;
}

const COMING = new Set(["waiting", "loading", "unloading"]);
const LOADED = new Set(["ready", "recovering", "draining"]);

function Row({ row }) {
  const loaded = row.held.filter((one) => LOADED.has(one.state));
  const places = [...new Set(row.held.filter((one) => one.neuron.state !== "lost").map((one) => one.neuron.name))];
  const used = Math.max(0, ...row.held.map((one) => one.last_used_at ?? 0));
  const size = Math.max(row.bytes ?? 0, ...row.held.map((one) => one.memory.reduce((sum, held) => sum + held.bytes, 0)));
  const count = loaded.length > 1 ? `ready × ${loaded.length}` : null;
  const allowed = mayOperate.value;
  const title = allowed ? undefined : whyNot.value;
  const open = () => (drawer.value = { kind: "model", name: row.model });
  return html`<tr data-row tabindex="0" data-kind="model" data-name=${row.model} data-model=${row.model} aria-label=${row.model}>
    <td><div class="name"><button class="link" onClick=${open} tabindex="-1">${row.model}</button>
      ${row.pinned && html`<span class="tag" title="Kept loaded, never evicted">pinned</span>`}
      ${row.aliases.length > 0 && html`<span class="small muted wide">${row.aliases.join(", ")}</span>`}</div></td>
    <td class="side"><${State} of=${row.state} word=${row.state === "ready" ? count : null} /></td>
    <td data-label=${places.length ? "on" : ""}>${places.length ? places.join(", ") : html`<span class="muted wide">${row.feasible?.length ? `could run on ${plural(row.feasible.length, "neuron")}` : "nowhere to run"}</span>`}</td>
    <td class="number wide">${tokens(row.context ?? row.held[0]?.context)}</td>
    <td class="number wide">${size ? bytes(size) : NONE}</td>
    <td class="number wide muted">${used ? ago(used, now.value) : NONE}</td>
    <td class="side"><div class="buttons">
      <button class="plain" onClick=${() => (drawer.value = { kind: "explain", model: row.model })}>Why?</button>
      <button class="plain wide" disabled=${!allowed} title=${title} onClick=${() => (row.pinned ? unpin(row.model) : pin(row.model))}>${row.pinned ? "Unpin" : "Pin"}</button>
      ${loaded.length > 0
        ? html`<button disabled=${!allowed} title=${title} onClick=${() => askUnload(row.model, loaded)}>Unload</button>`
        : html`<button disabled=${!allowed || COMING.has(row.state)} title=${title} onClick=${() => (dialog.value = { kind: "load", model: row.model })}>Load…</button>`}
    </div></td>
  </tr>`;
}
