// One model's side: its name, its turns, its answer on the way.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { NONE, milliseconds, rate, seconds, share, whole } from "../app/format.js";
import { Failure, State, copy, html } from "../app/parts.js";
import { Markdown } from "./markdown.js";

export function Pane({ talk, rows, onSend, onClose }) {
  const model = rows.find((one) => one.model === talk.model.value);
  const end = useRef(null);
  const turns = talk.turns.value;
  useEffect(() => {
    const box = end.current;
    if (box.scrollHeight - box.scrollTop - box.clientHeight < 160) box.scrollTop = box.scrollHeight;
  });
  return html`<section class="panel pane" aria-label="Chat with ${talk.model.value || "a model"}">
    <header>
      <select class="model" aria-label="Model" value=${talk.model.value} onChange=${(event) => (talk.model.value = event.target.value)}>
        ${!model && html`<option value=${talk.model.value}>${talk.model.value || "No model"}</option>`}
        ${rows.map((one) => html`<option key=${one.model} value=${one.model}>${one.model}</option>`)}
      </select>
      ${model && html`<${State} of=${model.state} />`}
      <span class="gap"></span>
      ${talk.running.value && html`<button onClick=${() => talk.running.value.abort()}>Stop</button>`}
      ${turns.length > 0 && !talk.running.value && html`<button class="plain" onClick=${() => { talk.turns.value = []; talk.error.value = null; }}>Clear</button>`}
      ${onClose && html`<button class="plain icon" aria-label="Close this side" onClick=${onClose}>✕</button>`}
    </header>
    <div class="turns" ref=${end} tabindex="0" role="log" aria-label="Conversation">
      ${turns.length === 0 && html`<p class="empty">${model ? `Say something to ${talk.model.value}${model.state === "ready" ? "." : "; it is loaded first."}` : "No model can chat here."}</p>`}
      ${turns.map((turn) => (turn.role === "assistant" ? html`<${Answer} key=${turn.id} turn=${turn} talk=${talk} last=${turn === turns.at(-1)} onSend=${onSend} />` : html`<${Said} key=${turn.id} turn=${turn} />`))}
      ${talk.waits.value && html`<p class="waits small muted" role="status"><span class="pulse" aria-hidden="true"></span>${talk.waits.value}</p>`}
      ${talk.error.value && html`<${Failure} error=${talk.error.value} retry=${() => onSend(talk)} />`}
    </div>
  </section>`;
}

function Said({ turn }) {
  const { role, content } = turn.message;
  const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
  return html`<article class="turn user" aria-label=${role === "tool" ? "Tool result" : "You"}>
    ${role === "tool" && html`<p class="small muted">Result of the tool</p>`}
    ${parts.map((part, index) => (part.type === "text" ? html`<p key=${index} class="plain-text">${part.text}</p>` : html`<img key=${index} src=${part.image_url.url} alt="Picture ${index + 1} of the message" />`))}
  </article>`;
}

function Answer({ turn, talk, last, onSend }) {
  const open = last && turn.finish.value === "tool_calls" && !talk.running.value;
  return html`<article class="turn" aria-label="Answer">
    ${turn.reasoning.value && html`<${Reasoning} turn=${turn} />`}
    ${turn.text.value && html`<${Text} text=${turn.text.value} />`}
    ${turn.calls.value.length > 0 && html`<${Calls} turn=${turn} talk=${talk} open=${open} onSend=${onSend} />`}
    ${turn.figures.value && html`<${Figures} turn=${turn} />`}
  </article>`;
}

function Text({ text }) {
  const shown = pretty(text);
  return shown === null ? html`<${Markdown} text=${text} />` : html`<pre class="json">${shown}</pre>`;
}

function pretty(text) {
  if (!/^\s*[{[]/.test(text)) return null;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

function Reasoning({ turn }) {
  const took = turn.reasoned.value;
  return html`<details class="reasoning"><summary>${took === null ? "Thinking…" : `Thought for ${seconds(Math.max(1, took))}`}</summary>
    <p class="plain-text muted small">${turn.reasoning.value}</p></details>`;
}

function Calls({ turn, talk, open, onSend }) {
  const [results, setResults] = useState({});
  const calls = turn.calls.value;
  const submit = (event) => {
    event.preventDefault();
    const told = calls.map((call) => ({ id: `${turn.id}-${call.id}`, role: "tool", message: { role: "tool", tool_call_id: call.id, content: results[call.id] ?? "" } }));
    talk.turns.value = [...talk.turns.peek(), ...told];
    onSend(talk);
  };
  return html`<form class="calls" onSubmit=${submit}>
    ${calls.map((call) => html`<div key=${call.id} class="call"><p><span class="tag">tool call</span> <strong class="mono">${call.name}</strong></p>
      <pre class="json">${pretty(call.arguments) ?? call.arguments}</pre>
      ${open && html`<label class="field">Its result<textarea rows="2" value=${results[call.id] ?? ""} onInput=${(event) => setResults({ ...results, [call.id]: event.target.value })}></textarea></label>`}</div>`)}
    ${open && html`<div class="buttons"><button class="primary">Send ${calls.length === 1 ? "the result" : "the results"}</button></div>`}
  </form>`;
}

const ENDS = { stop: "", length: "cut at its limit", tool_calls: "", stopped: "stopped", failed: "failed", content_filter: "filtered" };

function Figures({ turn }) {
  const told = turn.figures.value;
  const cached = told.prompt ? ` (${share(told.cached / told.prompt)} cached)` : "";
  const words = ENDS[turn.finish.value] ?? turn.finish.value;
  return html`<footer class="measures small muted">
    <span title="Measured in this page">first token ${milliseconds(told.first)}</span>
    <span title="Measured in this page">${rate(told.speed)} tok/s</span>
    <span>${told.prompt === null ? NONE : `${whole(told.prompt)} prompt${cached}`}</span>
    <span>${told.completion === null ? NONE : `${whole(told.completion)} answer`}</span>
    ${words && html`<span class="tone-caution text">${words}</span>`}
    <button class="link small" onClick=${() => copy(turn.text.peek())}>Copy</button>
  </footer>`;
}
