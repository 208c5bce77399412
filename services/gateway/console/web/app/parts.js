// Small parts that several views use.

import htm from "../vendor/htm.js";
import { useEffect, useRef } from "../vendor/hooks.js";
import { h } from "../vendor/preact.js";
import { signal } from "../vendor/signals.js";

export const html = htm.bind(h);

// Shape and word say the same, for those who cannot tell the colours apart.
const STATES = {
  ready: ["●", "good", "ready"],
  loading: ["◐", "caution", "loading"],
  waiting: ["◐", "caution", "waiting"],
  joining: ["◐", "caution", "joining"],
  recovering: ["↻", "caution", "recovering"],
  draining: ["◇", "draining", "draining"],
  unloading: ["◇", "draining", "unloading"],
  failed: ["✕", "bad", "failed"],
  lost: ["✕", "bad", "lost"],
  quarantined: ["✕", "bad", "quarantined"],
  cordoned: ["⊘", "draining", "cordoned"],
  disk: ["○", "muted", "on disk"],
  absent: ["○", "muted", "not loaded"],
  squeezed: ["▲", "caution", "squeezed"],
};

export function State({ of, word = null }) {
  const [shape, tone, usual] = STATES[of] ?? ["○", "muted", of];
  return html`<span class="state tone-${tone}"><span class="shape" aria-hidden="true">${shape}</span>${word ?? usual}</span>`;
}

export function Progress({ share, label, text }) {
  const percent = share == null ? null : Math.round(share * 100);
  return html`<div class="progress" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${percent ?? undefined} aria-valuetext=${text}>
    <div class="fill" style=${{ width: `${percent ?? 0}%` }}></div>
  </div>`;
}

export function shareOf(progress) {
  if (!progress) return null;
  if (progress.bytes_total) return progress.bytes_done / progress.bytes_total;
  return progress.modules_total ? progress.modules_done / progress.modules_total : null;
}

const PHASES = { resolving: "looking for its files", downloading: "downloading", loading: "loading", warming: "saying its first word" };
export const phaseOf = (progress) => PHASES[progress?.phase] ?? "loading";

export function Empty({ words, command = "" }) {
  return html`<div class="empty"><p>${words}</p>${command && html`<code>${command}</code>`}</div>`;
}

export function Skeleton({ lines = 4 }) {
  return html`<div class="skeleton" aria-hidden="true">${Array.from({ length: lines }, (_, i) => html`<i key=${i}></i>`)}</div>`;
}

export function Failure({ error, retry = null }) {
  return html`<div class="failure" role="alert">
    <p>${error.message}</p>
    ${error.requestId && html`<p class="small muted">Request <code>${error.requestId}</code></p>`}
    ${retry && html`<div><button onClick=${retry}>Retry</button></div>`}
  </div>`;
}

// A native dialog, open as long as it is drawn.
export function Dialog({ title, children, onClose, broad = false }) {
  const ref = useRef(null);
  useEffect(() => {
    const opener = document.activeElement;
    ref.current.showModal();
    return () => opener?.focus?.();
  }, []);
  return html`<dialog ref=${ref} class=${broad ? "broad" : ""} aria-label=${title} onClose=${onClose} onCancel=${onClose}
    onClick=${(event) => event.target === ref.current && onClose()}>
    <div class="inside"><h2>${title}</h2>${children}</div>
  </dialog>`;
}

// One polite live region, for changes of state alone.
export const said = signal("");
export function say(words) {
  said.value = words;
}

export function Said() {
  return html`<div class="hidden" role="status" aria-live="polite">${said.value}</div>`;
}

export async function copy(text, words = "Copied") {
  await navigator.clipboard.writeText(text);
  say(words);
}
