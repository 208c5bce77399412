// Who has used how many tokens of what.

import { useSignal } from "../vendor/signals.js";
import { useEffect } from "../vendor/hooks.js";
import { NONE, brief, clock, share, whole } from "../app/format.js";
import { get } from "../app/http.js";
import { Empty, Failure, Skeleton, html } from "../app/parts.js";
import { isReady } from "../app/state.js";

const BY = { key: "Key", model: "Model", neuron: "Neuron" };
const WINDOWS = { "15m": "15 minutes", "1h": "1 hour", "6h": "6 hours", "24h": "24 hours" };
const AGAIN = 10_000;

export function Usage({ search }) {
  const by = useSignal("key");
  const window_ = useSignal("1h");
  const told = useSignal(null);
  const error = useSignal(null);
  const ask = async () => {
    try {
      told.value = await get(`usage?by=${by.value}&window=${window_.value}`);
      error.value = null;
    } catch (failed) {
      error.value = failed;
    }
  };
  useEffect(() => {
    if (!isReady.value) return undefined;
    ask();
    const again = setInterval(() => document.hidden || ask(), AGAIN);
    return () => clearInterval(again);
  }, [by.value, window_.value, isReady.value]);
  const choose = (into) => (event) => (into.value = event.target.value);
  return html`<h1 class="hidden">Usage</h1>
    <div class="tools">
      <label class="field">By<select value=${by.value} onChange=${choose(by)}>${Object.entries(BY).map(([name, word]) => html`<option key=${name} value=${name}>${word}</option>`)}</select></label>
      <label class="field">Window<select value=${window_.value} onChange=${choose(window_)}>${Object.entries(WINDOWS).map(([name, word]) => html`<option key=${name} value=${name}>${word}</option>`)}</select></label>
    </div>
    <section class="panel" aria-labelledby="usage">
      <header><h2 id="usage">Usage</h2>${told.value && html`<span class="count">since ${clock(told.value.since)}${told.value.process.workers > 1 ? ", of this gateway process" : ""}</span>`}</header>
      ${error.value ? html`<${Failure} error=${error.value} retry=${ask} />` : !told.value ? html`<${Skeleton} lines="6" />` : html`<${Table} told=${told.value} search=${search} />`}
    </section>`;
}

function Table({ told, search }) {
  const wanted = search.value.trim().toLowerCase();
  const rows = told.rows.filter((one) => !wanted || one.name.toLowerCase().includes(wanted));
  if (!rows.length) return html`<${Empty} words=${wanted ? "Nobody of that name has asked." : "Nobody has asked in this time."} />`;
  const all = told.total.prompt_tokens + told.total.completion_tokens;
  return html`<div class="scroll"><table class="cards">
    <thead><tr><th scope="col">${BY[told.by]}</th><th scope="col">Share of tokens</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Failed</th>
      <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th><th scope="col" class="number">Answer</th><th scope="col" class="number">Reasoning</th></tr></thead>
    <tbody>${rows.map((one) => html`<${Row} key=${one.name} one=${one} all=${all} />`)}
      <tr><td><strong>All</strong></td><td class="full"></td>${cells(told.total, true)}</tr></tbody>
  </table></div>`;
}

function cells(one, strong = false) {
  const show = (value) => (strong ? html`<strong>${value}</strong>` : value);
  return html`<td class="number" data-label="requests">${show(whole(one.requests))}</td>
    <td class="number ${one.failed ? "tone-bad text" : ""}" data-label="failed">${whole(one.failed)}</td>
    <td class="number" data-label="prompt" title=${whole(one.prompt_tokens)}>${show(brief(one.prompt_tokens))}</td>
    <td class="number" data-label="cached">${one.prompt_tokens ? share(one.cached_tokens / one.prompt_tokens) : NONE}</td>
    <td class="number" data-label="answer" title=${whole(one.completion_tokens)}>${show(brief(one.completion_tokens))}</td>
    <td class="number wide">${brief(one.reasoning_tokens)}</td>`;
}

function Row({ one, all }) {
  const part = all ? (one.prompt_tokens + one.completion_tokens) / all : 0;
  return html`<tr><td>${one.name || html`<span class="muted">no key</span>`}</td>
    <td class="full"><div class="meter"><div class="share" role="img" aria-label=${`${share(part)} of all tokens`}><div class="fill" style=${{ width: `${100 * part}%` }}></div></div>
      <span class="small muted">${share(part)}</span></div></td>${cells(one)}</tr>`;
}
