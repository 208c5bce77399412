// Single keys as shortcuts; they can be switched off.

import { askUnload, dialog, drawer } from "./operations.js";
import { mayOperate, modelRows, neurons } from "./state.js";

const PAGES = { f: "#/", r: "#/requests", u: "#/usage", p: "#/playground" };
let awaitsPage = false;

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && drawer.value && !dialog.value) {
      drawer.value = null;
      return;
    }
    const field = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (field || dialog.value || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = event.target.closest?.("[data-row]");
    if (row && moves(event, row)) return;
    if (localStorage.getItem("cortex.shortcuts") === "off") return;
    if (press(event.key, row)) event.preventDefault();
  });
}

function moves(event, row) {
  if (event.key === "Enter" && event.target === row) {
    row.querySelector("button.link")?.click();
    event.preventDefault();
    return true;
  }
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return false;
  const rows = [...document.querySelectorAll("main [data-row]")];
  const next = rows[rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
  next?.focus();
  event.preventDefault();
  return true;
}

function press(key, row) {
  if (awaitsPage) {
    awaitsPage = false;
    if (PAGES[key]) {
      location.hash = PAGES[key];
      return true;
    }
  }
  if (key === "g") {
    awaitsPage = true;
    setTimeout(() => (awaitsPage = false), 1500);
    return true;
  }
  if (key === "/") {
    document.getElementById("search")?.focus();
    return true;
  }
  if (key === "?") {
    dialog.value = { kind: "keys" };
    return true;
  }
  return row ? acts(key, row.dataset) : false;
}

function acts(key, { kind, name, model, neuron }) {
  if (key === "e" && model) {
    drawer.value = { kind: "explain", model };
    return true;
  }
  if (!mayOperate.value) return false;
  if (key === "l" && kind === "model") {
    dialog.value = { kind: "load", model };
    return true;
  }
  if (key === "u" && model) {
    const held = modelRows.value.find((one) => one.model === model)?.held ?? [];
    const here = held.filter((one) => one.state === "ready" && (!neuron || one.neuron.name === neuron));
    if (here.length) askUnload(model, here);
    return here.length > 0;
  }
  if (key === "d" && (kind === "neuron" || neuron)) {
    const drained = kind === "neuron" ? name : neuron;
    if (neurons.value.get(drained)?.value.state === "lost") return false;
    dialog.value = { kind: "drain", neuron: drained };
    return true;
  }
  return false;
}
