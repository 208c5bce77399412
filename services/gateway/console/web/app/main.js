// The page: its frame, its four views, and who may see them.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { render } from "../vendor/preact.js";
import { effect, signal } from "../vendor/signals.js";
import { Dialogs } from "../views/dialogs.js";
import { Drawer } from "../views/drawer.js";
import { Fleet } from "../views/fleet.js";
import { Requests } from "../views/requests.js";
import { Usage } from "../views/usage.js";
import { Playground } from "../playground/playground.js";
import { seconds } from "./format.js";
import { key } from "./http.js";
import { listen } from "./keys.js";
import { dialog, drawer } from "./operations.js";
import { Said, html, say } from "./parts.js";
import { heardAt, isReady, link, now, registry, visitor } from "./state.js";
import { connect } from "./stream.js";

const PAGES = [["", "Fleet", Fleet], ["requests", "Requests", Requests], ["usage", "Usage", Usage], ["playground", "Playground", Playground]];
const THEMES = { auto: "light", light: "dark", dark: "auto" };

const search = signal("");
const route = signal(read());
const theme = signal(localStorage.getItem("cortex.theme") ?? "auto");

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { page: PAGES.some(([name]) => name === path) ? path : "", query: new URLSearchParams(query) };
}

addEventListener("hashchange", () => {
  route.value = read();
  drawer.value = null;
  search.value = "";
  document.querySelector("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
});

effect(() => {
  localStorage.setItem("cortex.theme", theme.value);
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});

effect(() => {
  const name = PAGES.find(([path]) => path === route.value.page)[1];
  document.title = `${name} · Cortex`;
});

function App() {
  const [, , View] = PAGES.find(([path]) => path === route.value.page);
  const stale = link.value.state === "lost";
  return html`<div class="frame">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("main").focus(); }}>Skip to the content</a>
    <${Top} />
    <${Banner} />
    <main id="main" tabindex="-1">
      ${link.value.state === "refused"
        ? html`<${Door} />`
        : html`<div class="with-drawer ${drawer.value ? "open" : ""}">
            <div class=${stale && route.value.page !== "playground" ? "stale" : ""}><${View} search=${search} query=${route.value.query} /></div>
            <${Drawer} />
          </div>`}
    </main>
    <${Dialogs} /><${Said} />
  </div>`;
}

function Top() {
  return html`<header class="top">
    <a class="brand" href="#/" aria-label="Cortex, fleet"><${Mark} /><strong>Cortex</strong></a>
    <nav class="tabs" aria-label="Pages">${PAGES.map(([path, name]) => html`<a key=${path} href="#/${path}" aria-current=${route.value.page === path ? "page" : undefined}>${name}</a>`)}</nav>
    <span class="gap"></span>
    ${route.value.page !== "playground" && html`<input id="search" class="filter wide" type="search" placeholder="Search  /" aria-label="Search" value=${search.value}
      onInput=${(event) => (search.value = event.target.value)} onKeyDown=${(event) => event.key === "Escape" && event.target.blur()} />`}
    <${Live} />
    <button class="plain icon" aria-label="Theme: ${theme.value}" title="Theme: ${theme.value}" onClick=${() => (theme.value = THEMES[theme.value])}>
      <span aria-hidden="true">${{ auto: "◐", light: "☀︎", dark: "☾" }[theme.value]}</span></button>
    <button class="plain icon wide" aria-label="Keyboard" title="Keyboard" onClick=${() => (dialog.value = { kind: "keys" })}><span aria-hidden="true">?</span></button>
    ${(visitor.value?.principal || key.get()) && html`<button class="plain wide" title="Forget the key" onClick=${leave}>${visitor.value?.principal || "Key"} ✕</button>`}
  </header>`;
}

function Mark() {
  return html`<svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="7" fill="#1f5fbf" />
    <path d="M21.5 11.2a7 7 0 1 0 0 9.6" fill="none" stroke="#fff" stroke-width="3.4" stroke-linecap="round" /><circle cx="22.6" cy="16" r="2.3" fill="#fff" /></svg>`;
}

function Live() {
  const { state } = link.value;
  const age = seconds(Math.max(0, (Date.now() - heardAt.value) / 1000));
  const words = { live: "live", connecting: "connecting…", lost: `${now.value && age} old`, refused: "no key" }[state];
  return html`<span class="live" data-state=${state} title=${visitor.value ? `Cortex ${visitor.value.process.version}` : ""}><span class="dot" aria-hidden="true"></span>${words}</span>`;
}

function Banner() {
  const { state, error } = link.value;
  if (state === "lost" || (state === "connecting" && error))
    return html`<div class="banner bad" role="alert"><p>The gateway is not heard: ${error?.message ?? ""} What is shown is old.</p><button onClick=${connect}>Try now</button></div>`;
  if (state !== "live") return null;
  if (!registry.value.known) return html`<div class="banner bad" role="alert"><p>The gateway has not reached any registry yet.</p></div>`;
  if (!registry.value.followed) return html`<div class="banner" role="alert"><p>The registry is away. Loaded models go on serving; nothing is loaded or unloaded, and what is shown of the fleet may be old.</p></div>`;
  if (registry.value.settling) return html`<div class="banner"><p>The registry has just started and waits for its neurons.</p></div>`;
  if (visitor.value?.console === "operate" && visitor.value.operations_refused) return html`<div class="banner"><p>${visitor.value.operations_refused}</p></div>`;
  return null;
}

function leave() {
  key.set("");
  location.reload();
}

function Door() {
  const [given, setGiven] = useState("");
  const field = useRef(null);
  useEffect(() => field.current?.focus(), []);
  const enter = (event) => {
    event.preventDefault();
    key.set(given.trim());
    connect();
  };
  const { error } = link.value;
  return html`<section class="panel door" aria-labelledby="door"><header><h2 id="door">This console needs a key</h2></header>
    <form class="body" onSubmit=${enter}>
      <p class=${key.get() ? "wrong" : "muted"} role="alert">${error?.message}</p>
      <label class="field">API key<input ref=${field} type="password" autocomplete="off" value=${given} onInput=${(event) => setGiven(event.target.value)} /></label>
      <p class="small muted">It stays in this tab and goes to this gateway alone.</p>
      <div class="buttons"><button class="primary" disabled=${!given.trim()}>Enter</button></div>
    </form></section>`;
}

let before = "";
effect(() => {
  const { state } = link.value;
  if (before && state !== before && isReady.peek()) say({ live: "Live again", lost: "The gateway is not heard" }[state] ?? "");
  before = state;
});

listen();
render(html`<${App} />`, document.getElementById("app"));
connect();
