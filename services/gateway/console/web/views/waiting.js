// Who waits for a model, and why; and what was ordered from this page.

import { bytes, seconds, share, plural } from "../app/format.js";
import { dismiss, drawer, orders, stepWords } from "../app/operations.js";
import { Empty, Progress, State, html, phaseOf, shareOf } from "../app/parts.js";
import { now, pending, waiting } from "../app/state.js";

export function Waiting() {
  const rows = waiting.value;
  return html`<section class="panel of-waiting" aria-labelledby="waiting">
    <header><h2 id="waiting">Waiting</h2><span class="count">${rows.length}</span></header>
    ${pending.value.problem && html`<p class="body small tone-caution text">What waits is not known: ${pending.value.problem}</p>`}
    ${rows.length === 0
      ? !pending.value.problem && html`<${Empty} words="Nobody waits for a model." />`
      : html`<div class="rows">${rows.map((one) => html`<${Placement} key=${one.model} one=${one} />`)}</div>`}
  </section>`;
}

function Placement({ one }) {
  const why = () => (drawer.value = { kind: "explain", model: one.model });
  return html`<article class="wait" data-row tabindex="0" data-kind="model" data-name=${one.model} data-model=${one.model}>
    <div class="line"><h3>${one.model}</h3>
      <span class="small muted nowrap">${one.waiters ? plural(one.waiters, "caller") : "no caller"} · ${seconds(one.since && now.value - one.since)}</span>
      <button class="plain" onClick=${why}>Why?</button></div>
    <${Step} step=${one.step} label=${one.model} />
  </article>`;
}

function Step({ step, label }) {
  const progress = step?.progress ?? null;
  const part = shareOf(progress);
  const eta = step?.eta >= 1 ? ` · ~${seconds(step.eta)}` : "";
  return html`<p class="muted">${stepWords(step) || "Asked"}${eta}</p>
    ${progress && html`<${Progress} share=${part} label="Loading ${label}" text="${phaseOf(progress)} ${share(part)}" />
      <p class="small muted">${phaseOf(progress)} ${share(part)}${progress.bytes_total ? ` · ${bytes(progress.bytes_done)} of ${bytes(progress.bytes_total)}` : ""}</p>`}`;
}

export function Orders() {
  if (!orders.value.length) return null;
  return html`<section class="panel of-orders" aria-labelledby="orders">
    <header><h2 id="orders">Yours</h2></header>
    <div class="rows">${orders.value.map((one) => html`<${Order} key=${one.id} one=${one} />`)}</div>
  </section>`;
}

const STATE_OF = { asked: ["waiting", "asked…"], running: ["loading", "under way"], done: ["ready", "done"], failed: ["failed", "refused"] };

function Order({ one }) {
  const [state, word] = STATE_OF[one.state];
  return html`<article class="wait">
    <div class="line"><h3>${one.words}</h3><${State} of=${state} word=${word} />
      ${one.stop && html`<button onClick=${one.stop} title=${one.stopWords}>Stop</button>`}
      ${one.state === "failed" && html`<button class="plain icon" aria-label="Dismiss" onClick=${() => dismiss(one.id)}>✕</button>`}</div>
    ${one.state === "running" && html`<${Step} step=${one.step} label=${one.words} />`}
    ${one.state === "done" && one.result && !one.result.endsWith(": done") && html`<p class="muted small">${one.result}</p>`}
    ${one.error && html`<div role="alert"><p>${one.error.message}</p>
      ${one.error.requestId && html`<p class="small muted">Request <code>${one.error.requestId}</code></p>`}</div>`}
  </article>`;
}
