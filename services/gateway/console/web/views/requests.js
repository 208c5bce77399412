// The last requests, without their content.

import { useSignal } from "../vendor/signals.js";
import { useEffect } from "../vendor/hooks.js";
import { NONE, clock, milliseconds, rate, share, whole } from "../app/format.js";
import { get } from "../app/http.js";
import { drawer } from "../app/operations.js";
import { Empty, Failure, Skeleton, State, html } from "../app/parts.js";
import { isReady, requests, visitor } from "../app/state.js";

const MOST_SHOWN = 100;
const drawn = new WeakMap(); // a row never changes, so it is drawn once

export function Requests({ search }) {
  const error = useSignal(null);
  const only = useSignal("all");
  const held = useSignal(null); // rows stand still while somebody points at them
  const fill = async () => {
    error.value = null;
    try {
      requests.value = (await get("requests")).requests;
    } catch (failed) {
      error.value = failed;
    }
  };
  useEffect(() => {
    if (isReady.value) fill();
  }, [isReady.value]);
  if (error.value) return html`<div class="panel"><${Failure} error=${error.value} retry=${fill} /></div>`;
  if (!isReady.value) return html`<div class="panel"><${Skeleton} lines="9" /></div>`;
  const all = held.value ?? requests.value;
  const newer = held.value ? (requests.value[0]?.number ?? 0) - (held.value[0]?.number ?? 0) : 0;
  const wanted = search.value.trim().toLowerCase();
  const rows = all.filter((one) => passes(one, only.value, wanted)).slice(0, MOST_SHOWN);
  const several = visitor.value.process.workers > 1;
  return html`<h1 class="hidden">Requests</h1>
    <section class="panel" aria-labelledby="requests">
      <header><h2 id="requests">Requests</h2><span class="count">the last ${requests.value.length}${several ? " of this gateway process" : ""}, none of their content</span>
        <span class="gap"></span>${newer > 0 && html`<span class="count" aria-hidden="true">held, ${newer} newer</span>`}
        <select aria-label="Which requests" value=${only.value} onChange=${(event) => (only.value = event.target.value)}>
          <option value="all">All</option><option value="failed">Failed</option><option value="slow">First token over 2 s</option></select></header>
      ${requests.value.length === 0 && html`<${Empty} words="No request has ended yet. The playground sends one, and so does:" command="cortex chat" />`}
      ${requests.value.length > 0 && rows.length === 0 && html`<${Empty} words="No request is like that." />`}
      ${rows.length > 0 && html`<div class="scroll" onPointerEnter=${() => (held.value = requests.peek())} onPointerLeave=${() => (held.value = null)}
        onFocusIn=${() => (held.value ??= requests.peek())} onFocusOut=${(event) => event.currentTarget.contains(event.relatedTarget) || (held.value = null)}><table class="cards">
        <thead><tr><th scope="col">Ended</th><th scope="col">Outcome</th><th scope="col">Model</th><th scope="col">Key</th><th scope="col">Neuron</th>
          <th scope="col" class="number">First token</th><th scope="col" class="number">Took</th><th scope="col" class="number">tok/s</th>
          <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th><th scope="col" class="number">Answer</th></tr></thead>
        <tbody>${rows.map(drawnRow)}</tbody>
      </table></div>`}
    </section>`;
}

function passes(one, only, wanted) {
  if (only === "failed" && !one.reason) return false;
  if (only === "slow" && !(one.first_token_ms > 2000)) return false;
  const words = [one.model, one.asked, one.principal, one.neuron, one.upstream, one.request_id, one.reason];
  return !wanted || words.some((word) => word.toLowerCase().includes(wanted));
}

function Outcome({ one }) {
  if (one.client_gone) return html`<${State} of="absent" word="client left" />`;
  if (one.reason) return html`<${State} of="failed" word="${one.status === 200 ? "broke" : one.status} ${one.reason.toLowerCase().replaceAll("_", " ")}" />`;
  return html`<${State} of="ready" word=${one.finish_reason.replaceAll("_", " ") || "done"} />`;
}

function drawnRow(one) {
  if (!drawn.has(one)) drawn.set(one, html`<${Row} key=${one.number} one=${one} />`);
  return drawn.get(one);
}

function Row({ one }) {
  const decode = one.first_token_ms != null ? one.elapsed_ms - one.first_token_ms : 0;
  const speed = decode > 0 && one.completion_tokens > 1 ? ((one.completion_tokens - 1) * 1000) / decode : null;
  const open = () => (drawer.value = { kind: "request", id: one.request_id, request: one });
  return html`<tr data-row tabindex="0" data-kind="request" aria-label="${one.model}, ${one.reason || one.finish_reason || "done"}" onDblClick=${open}>
    <td class="nowrap"><button class="link" tabindex="-1" onClick=${open}>${clock(one.ended_at)}</button></td>
    <td class="side"><${Outcome} one=${one} /></td>
    <td>${one.model === "unknown" ? one.asked || NONE : one.model}</td>
    <td class="side" data-label=${one.principal ? "key" : ""}>${one.principal || html`<span class="muted wide">${NONE}</span>`}</td>
    <td class="wide">${one.neuron || one.upstream || NONE}</td>
    <td class="number wide">${milliseconds(one.first_token_ms)}</td>
    <td data-label="took" class="number">${milliseconds(one.elapsed_ms)}</td>
    <td class="number wide">${rate(speed)}</td>
    <td class="number wide">${whole(one.prompt_tokens)}</td>
    <td class="number wide">${one.prompt_tokens ? share(one.cached_tokens / one.prompt_tokens) : NONE}</td>
    <td data-label="tokens" class="number side">${whole(one.completion_tokens)}</td>
  </tr>`;
}
