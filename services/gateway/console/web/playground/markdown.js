// Markdown of models: foreign text, so DOMPurify has the last word, and no picture is fetched.

import { marked } from "../vendor/marked.js";
import "../vendor/purify.js";
import { useEffect, useRef } from "../vendor/hooks.js";
import { html } from "../app/parts.js";

const purify = globalThis.DOMPurify;
const RULES = {
  RETURN_TRUSTED_TYPE: true,
  FORBID_TAGS: ["style", "form", "input", "button", "select", "textarea", "iframe", "object", "embed", "video", "audio", "source", "link", "meta", "base", "svg", "math", "dialog"],
  FORBID_ATTR: ["style", "id", "name", "class", "srcset", "background", "poster", "ping", "tabindex", "autofocus", "accesskey"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

// A picture's address may carry what was said to whoever it names: only what is in the text itself is shown.
purify.addHook("uponSanitizeElement", (node) => {
  if (node.nodeName === "IMG" && !/^data:image\/(png|jpeg|gif|webp);/i.test(node.getAttribute("src") ?? "")) {
    const words = document.createElement("span");
    words.textContent = `[picture: ${node.getAttribute("alt") || "from elsewhere, not fetched"}]`;
    node.replaceWith(words);
  }
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

export function clean(text) {
  return purify.sanitize(marked.parse(text, { async: false, gfm: true, breaks: false }), RULES);
}

// The blocks of a text. While it grows, all but the last stay as they are.
export function blocksOf(text) {
  return marked.lexer(text).filter((token) => token.type !== "space").map((token) => token.raw);
}

function Block({ raw }) {
  const ref = useRef(null);
  useEffect(() => {
    ref.current.innerHTML = clean(raw);
  }, [raw]);
  return html`<div ref=${ref}></div>`;
}

export function Markdown({ text }) {
  return html`<div class="markdown">${blocksOf(text).map((raw, index) => html`<${Block} key=${index} raw=${raw} />`)}</div>`;
}
