// Details beside the live view, never over it where there is room.

import { useEffect, useRef } from "../vendor/hooks.js";
import { drawer } from "../app/operations.js";
import { html } from "../app/parts.js";
import { instances, modelRows, neurons } from "../app/state.js";
import { InstanceDetails, ModelDetails, NeuronDetails, RequestDetails } from "./details.js";
import { Explanation } from "./explanation.js";

export function Drawer() {
  const shown = drawer.value;
  const heading = useRef(null);
  const key = JSON.stringify(shown && [shown.kind, shown.name, shown.id, shown.model]);
  useEffect(() => {
    if (!shown) return undefined;
    const opener = document.activeElement;
    heading.current?.focus();
    return () => opener?.isConnected && opener.focus();
  }, [key]);
  if (!shown) return null;
  const [title, body] = content(shown);
  return html`<aside class="panel drawer" aria-label=${title}>
    <header><h3 ref=${heading} tabindex="-1" class="cut">${title}</h3><span class="gap"></span>
      <button class="plain icon" aria-label="Close details" onClick=${() => (drawer.value = null)}>✕</button></header>
    ${body ?? html`<section><p class="muted">It is not there any more.</p></section>`}
  </aside>`;
}

function content(shown) {
  if (shown.kind === "neuron") {
    const one = neurons.value.get(shown.name)?.value;
    return [shown.name, one && html`<${NeuronDetails} one=${one} />`];
  }
  if (shown.kind === "instance") {
    const held = instances.value.find((one) => one.id === shown.id);
    return [held?.model ?? "Model", held && html`<${InstanceDetails} held=${held} />`];
  }
  if (shown.kind === "model") {
    const row = modelRows.value.find((one) => one.model === shown.name);
    return [shown.name, row && html`<${ModelDetails} row=${row} />`];
  }
  if (shown.kind === "request") return ["Request", html`<${RequestDetails} one=${shown.request} />`];
  return [`Why ${shown.model}?`, html`<${Explanation} key=${shown.model} model=${shown.model} />`];
}
