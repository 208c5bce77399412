// Neurons with their devices, and what they hold.

import { bytes, gib, plural, rate, share } from "../app/format.js";
import { dialog, drawer, askUnload, cordon, uncordon } from "../app/operations.js";
import { Empty, Progress, State, html, phaseOf, shareOf } from "../app/parts.js";
import { mayOperate, neurons, rates, whyNot } from "../app/state.js";

export function Neurons({ search }) {
  const all = [...neurons.value.values()];
  const wanted = search.value.trim().toLowerCase();
  const shown = wanted ? all.filter((one) => matches(one.value, wanted)) : all;
  return html`<section class="panel" aria-labelledby="neurons">
    <header><h2 id="neurons">Neurons</h2>
      <span class="count">${wanted ? `${shown.length} of ${all.length}` : all.length}</span></header>
    ${all.length === 0 && html`<${Empty} words="No neuron is attached. On a host with the models:" command="cortex neuron --registry HOST:31315" />`}
    ${all.length > 0 && shown.length === 0 && html`<${Empty} words="No neuron, model or device has “${wanted}” in its name." />`}
    <div class="rows">${shown.map((one) => html`<${Neuron} key=${one.peek().name} of=${one} />`)}</div>
  </section>`;
}

function matches(one, wanted) {
  const words = [one.name, one.state, ...one.devices.map((d) => d.name), ...one.instances.map((i) => i.model)];
  return words.some((word) => word.toLowerCase().includes(wanted));
}

function Neuron({ of }) {
  const one = of.value;
  const open = () => (drawer.value = { kind: "neuron", name: one.name });
  const placed = new Map(one.devices.map((device) => [device.id, []]));
  const unplaced = [];
  for (const held of one.instances) (placed.get(held.memory[0]?.device) ?? unplaced).push(held);
  return html`<article class="neuron ${one.state === "lost" ? "is-lost" : ""}" data-row tabindex="0" aria-label="Neuron ${one.name}, ${one.state}"
    data-kind="neuron" data-name=${one.name}>
    <header>
      <h3 class="cut"><button class="link" onClick=${open} tabindex="-1">${one.name}</button></h3>
      <${State} of=${one.state} />
      <span class="gap"></span>
      ${one.state !== "lost" && html`<${NeuronActions} one=${one} />`}
    </header>
    ${one.devices.map((device) => html`<${Device} key=${device.id} device=${device} instances=${one.instances} />
      ${placed.get(device.id).length > 0 && html`<div class="instances">
        ${placed.get(device.id).map((held) => html`<${Instance} key=${held.id} held=${held} neuron=${one} />`)}</div>`}`)}
    ${unplaced.length > 0 && html`<div class="instances">${unplaced.map((held) => html`<${Instance} key=${held.id} held=${held} neuron=${one} />`)}</div>`}
    ${one.devices.length === 0 && html`<p class="small muted">It has not reported yet.</p>`}
  </article>`;
}

function NeuronActions({ one }) {
  const allowed = mayOperate.value;
  const title = allowed ? undefined : whyNot.value;
  const drain = () => (dialog.value = { kind: "drain", neuron: one.name });
  return html`<div class="buttons">
    ${one.cordoned
      ? html`<button disabled=${!allowed} title=${title} onClick=${() => uncordon(one.name)}>Uncordon</button>`
      : html`<button class="plain wide" disabled=${!allowed} title=${title} onClick=${() => cordon(one.name)}>Cordon</button>`}
    ${(!one.cordoned || one.instances.length > 0) && html`<button class="plain" disabled=${!allowed} title=${title} onClick=${drain}>Drain</button>`}
  </div>`;
}

function Device({ device, instances }) {
  const here = instances
    .map((held) => ({ held, taken: held.memory.find((m) => m.device === device.id)?.bytes ?? 0 }))
    .filter((one) => one.taken > 0);
  const models = here.reduce((sum, one) => sum + one.taken, 0);
  const used = Math.max(0, device.total - device.free);
  const other = Math.max(0, used - models);
  const reserved = Math.min(device.reserved, device.free);
  const usable = Math.max(0, device.free - device.reserved);
  const part = (count) => ({ flexBasis: `${device.total ? (100 * count) / device.total : 0}%` });
  const name = device.name || device.id;
  const words = `${name}: ${bytes(used)} of ${bytes(device.total)} used, ${bytes(usable)} usable. ` +
    here.map((one) => `${one.held.model} ${bytes(one.taken)}`).concat(other ? [`others ${bytes(other)}`] : []).join(", ");
  const extra = [
    device.utilization != null && share(device.utilization),
    device.temperature != null && `${Math.round(device.temperature)} °C`,
    device.power != null && `${Math.round(device.power)} W`,
  ].filter(Boolean).join(" · ");
  return html`<div class="device">
    <span class="name cut" title=${name}>${name}</span>
    <div class="memory" role="img" aria-label=${words}>
      ${here.map((one) => html`<div key=${one.held.id} class="segment model ${one.held.state === "draining" || one.held.state === "unloading" ? "draining" : ""}"
        style=${part(one.taken)} title="${one.held.model} ${bytes(one.taken)}"></div>`)}
      ${other > 0 && html`<div class="segment other" style=${part(other)} title="Others ${bytes(other)}"></div>`}
      ${reserved > 0 && html`<div class="segment reserved" style=${part(reserved)} title="Reserved ${bytes(reserved)}"></div>`}
      <div class="free" title="Usable ${bytes(usable)}"></div>
    </div>
    <span class="figures">${extra && html`<span class="wide">${extra} · </span>`}<b>${gib(used)}</b> / ${gib(device.total)} GiB<span class="wide">, ${gib(usable)} usable</span></span>
    ${device.quarantine && html`<p class="quarantine tone-bad text">Quarantined: ${device.quarantine}</p>`}
  </div>`;
}

function Instance({ held, neuron }) {
  const told = rates.value?.instances[held.id];
  const progress = held.state === "loading" ? shareOf(held.progress) : null;
  const state = held.squeezed && held.state === "ready" ? "squeezed" : held.state;
  const open = () => (drawer.value = { kind: "instance", id: held.id, neuron: neuron.name });
  return html`<div class="instance" data-row tabindex="0" data-kind="instance" data-model=${held.model} data-neuron=${neuron.name} data-name=${held.id}
    aria-label="${held.model}, ${state}, ${plural(held.active, "request")}">
    <div class="who">
      <${State} of=${state} word=${state === "ready" || state === "loading" ? "" : null} /><span class="hidden">${state}</span>
      <button class="link cut" onClick=${open} tabindex="-1" title=${held.model}>${held.model}</button>
      ${held.quantization && html`<span class="tag wide">${held.quantization}</span>`}
      ${held.memory.length > 1 && html`<span class="tag">${held.memory.length} devices</span>`}
    </div>
    <div class="load">
      ${held.state === "loading"
        ? html`<span class="all">${phaseOf(held.progress)} <b>${share(progress)}</b></span>`
        : html`<span title="Requests at work of its places${held.queued ? ", and in its queue" : ""}"><b>${held.active}</b>${held.places ? `/${held.places}` : ""}${held.queued ? ` +${held.queued}` : ""}</span>
          <span>${told?.tokens_per_second > 0 && html`<b>${rate(told.tokens_per_second)}</b> tok/s`}</span>
          <span class="wide" title="Share of prompts that came from its cache">${told?.cached_share != null && `${share(told.cached_share)} cached`}</span>`}
    </div>
    <button class="plain icon" disabled=${!mayOperate.value} title=${mayOperate.value ? "Unload" : whyNot.value} aria-label="Unload ${held.model} on ${neuron.name}"
      onClick=${() => askUnload(held.model, [{ ...held, neuron }])}><span aria-hidden="true">⏏︎</span></button>
    ${held.state === "loading" && html`<div class="more"><${Progress} share=${progress} label="Loading ${held.model}" text=${`${phaseOf(held.progress)} ${share(progress)}`} /></div>`}
  </div>`;
}
