// Chat with any model, two side by side where wanted. Nothing of it leaves this tab but requests.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { effect, signal } from "../vendor/signals.js";
import { key } from "../app/http.js";
import { Dialog, Skeleton, copy, html } from "../app/parts.js";
import { isReady, modelRows, visitor } from "../app/state.js";
import { LANGUAGES } from "./code.js";
import { bodyOf, conversation, messagesOf, send } from "./conversation.js";
import { Pane } from "./pane.js";
import { Settings, problemsOf } from "./settings.js";

const MOST_PICTURE_BYTES = 8 << 20;
const talks = signal([conversation()]);
const settings = signal({ system: "", temperature: "", maxTokens: "", schema: "", tools: "" });
const draft = signal("");
const pictures = signal([]);
const showsCode = signal(false);
let turnCount = 0;

// A model that can chat: a loaded one first.
const chatting = () => modelRows.value.filter((one) => !one.capabilities.length || one.capabilities.includes("chat"));

effect(() => {
  const rows = chatting();
  const usual = rows.find((one) => one.state === "ready") ?? rows[0];
  for (const talk of talks.value) if (!talk.model.peek() && usual) talk.model.value = usual.model;
});

export function Playground({ query }) {
  useEffect(() => {
    const wanted = query.get("model");
    if (wanted) talks.peek()[0].model.value = wanted;
  }, [query]);
  if (!isReady.value) return html`<div class="panel"><${Skeleton} lines="9" /></div>`;
  const rows = chatting();
  const two = talks.value.length > 1;
  const close = (talk) => {
    talk.running.peek()?.abort();
    talks.value = talks.peek().filter((one) => one !== talk);
  };
  return html`<h1 class="hidden">Playground</h1>
    <div class="playground ${two ? "two" : ""}">
      <${Settings} settings=${settings} />
      <div class="panes">${talks.value.map((talk) => html`<${Pane} key=${talk.id} talk=${talk} rows=${rows} onSend=${again} onClose=${two ? () => close(talk) : null} />`)}</div>
      <${Composer} rows=${rows} />
      ${showsCode.value && html`<${Code} />`}
    </div>`;
}

function again(talk) {
  if (talk.running.peek() || problemsOf(settings.peek()).length) return;
  send(talk, settings.peek());
}

function content() {
  if (!pictures.peek().length) return draft.peek();
  const shown = pictures.peek().map((url) => ({ type: "image_url", image_url: { url } }));
  return [{ type: "text", text: draft.peek() }, ...shown];
}

function submit() {
  const text = draft.peek().trim();
  if ((!text && !pictures.peek().length) || problemsOf(settings.peek()).length || talks.peek().some((talk) => talk.running.peek())) return;
  const message = { role: "user", content: content() };
  for (const talk of talks.peek()) {
    if (!talk.model.peek()) continue;
    talk.turns.value = [...talk.turns.peek(), { id: `user-${++turnCount}`, role: "user", message }];
    send(talk, settings.peek());
  }
  draft.value = "";
  pictures.value = [];
}

function sees(rows) {
  return talks.value.every((talk) => {
    const held = rows.find((one) => one.model === talk.model.value);
    return held && (held.capabilities.includes("vision") || held.held.some((one) => one.capabilities.includes("vision")));
  });
}

function Composer({ rows }) {
  const box = useRef(null);
  const [refused, setRefused] = useState("");
  const running = talks.value.some((talk) => talk.running.value);
  const wrong = problemsOf(settings.value);
  useEffect(() => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(220, box.current.scrollHeight + 2)}px`;
  }, [draft.value]);
  const press = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  };
  const pick = async (event) => {
    setRefused("");
    for (const file of event.target.files) {
      if (file.size > MOST_PICTURE_BYTES) setRefused(`${file.name} is larger than 8 MiB.`);
      else pictures.value = [...pictures.peek(), await asUrl(file)];
    }
    event.target.value = "";
  };
  return html`<form class="panel composer" onSubmit=${(event) => { event.preventDefault(); submit(); }}>
    ${pictures.value.length > 0 && html`<div class="pictures">${pictures.value.map((url, index) => html`<button type="button" key=${index} class="plain" title="Remove it" aria-label="Remove picture ${index + 1}"
      onClick=${() => (pictures.value = pictures.peek().filter((_, other) => other !== index))}><img src=${url} alt="" /></button>`)}</div>`}
    <textarea ref=${box} rows="1" aria-label="Message" placeholder=${matchMedia("(max-width: 720px)").matches ? "Message" : "Message; Enter sends, Shift+Enter begins a line"} value=${draft.value} onInput=${(event) => (draft.value = event.target.value)} onKeyDown=${press}></textarea>
    <div class="line">
      ${sees(rows) && html`<label class="button file">Picture<input class="hidden" type="file" accept="image/png,image/jpeg,image/gif,image/webp" multiple onChange=${pick} /></label>`}
      ${talks.value.length === 1 && html`<button type="button" class="plain" onClick=${() => (talks.value = [...talks.peek(), conversation(rows.find((one) => one.model !== talks.peek()[0].model.peek())?.model)])}><span class="wide">Compare with a second model</span><span class="narrow">Compare</span></button>`}
      <button type="button" class="plain" onClick=${() => (showsCode.value = true)} disabled=${wrong.length > 0}>As code</button>
      <span class="gap"></span>
      <span class="wrong" role="alert">${wrong[0] ?? refused}</span>
      <button class="primary" disabled=${running || wrong.length > 0 || (!draft.value.trim() && !pictures.value.length)}>Send</button>
    </div>
  </form>`;
}

function asUrl(file) {
  return new Promise((resolve, refuse) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => refuse(reader.error);
    reader.readAsDataURL(file);
  });
}

function Code() {
  const [language, setLanguage] = useState("curl");
  const talk = talks.value[0];
  const messages = messagesOf(talk.turns.value);
  const unsent = draft.value.trim() || pictures.value.length ? [{ role: "user", content: content() }] : [];
  const body = bodyOf(talk.model.value, settings.value, messages.length + unsent.length ? [...messages, ...unsent] : [{ role: "user", content: "Hello" }]);
  const text = LANGUAGES[language](body, Boolean(visitor.value?.principal || key.get()));
  return html`<${Dialog} title="The same request" broad onClose=${() => (showsCode.value = false)}>
    <div class="buttons" role="group" aria-label="Language">${Object.keys(LANGUAGES).map((name) => html`<button key=${name} aria-pressed=${name === language ? "true" : "false"} onClick=${() => setLanguage(name)}>${name}</button>`)}</div>
    <pre class="words code" tabindex="0">${text}</pre>
    <footer><button onClick=${() => (showsCode.value = false)}>Close</button><button class="primary" onClick=${() => copy(text)}>Copy</button></footer>
  </${Dialog}>`;
}
