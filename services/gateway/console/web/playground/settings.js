// What is sent besides the messages, checked before it is sent.

import { html } from "../app/parts.js";

function objectIn(text, what) {
  try {
    const value = JSON.parse(text);
    if (what === "tools") return Array.isArray(value) ? "" : "Tools are a list.";
    return value && typeof value === "object" && !Array.isArray(value) ? "" : "The schema is no JSON object.";
  } catch (error) {
    return `The ${what === "tools" ? "tools are" : "schema is"} no JSON: ${error.message}`;
  }
}

export function problemsOf({ temperature, maxTokens, schema, tools }) {
  const found = [];
  if (temperature !== "" && !(Number(temperature) >= 0)) found.push("The temperature is a number from 0 on.");
  if (maxTokens !== "" && !(Number.isInteger(Number(maxTokens)) && Number(maxTokens) > 0)) found.push("The longest answer is a whole number.");
  if (schema) found.push(objectIn(schema, "schema"));
  if (tools) found.push(objectIn(tools, "tools"));
  return found.filter(Boolean);
}

const CITY = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const EXAMPLES = { schema: CITY, tools: [{ type: "function", function: { name: "weather", description: "The weather in a city", parameters: CITY } }] };

export function Settings({ settings }) {
  const told = settings.value;
  const set = (name) => (event) => (settings.value = { ...settings.peek(), [name]: event.target.value });
  const example = (name) => () => (settings.value = { ...settings.peek(), [name]: JSON.stringify(EXAMPLES[name], null, 2) });
  const json = (name, title, rows) => html`<div class="json-field"><label class="field">${title}
      <textarea class="mono" rows=${rows} spellcheck="false" value=${told[name]} onInput=${set(name)} placeholder="None"></textarea></label>
    ${!told[name] && html`<button type="button" class="link small" onClick=${example(name)}>Example</button>`}</div>`;
  const used = Object.values(told).filter(Boolean).length;
  return html`<details class="panel settings" open=${matchMedia("(min-width: 1101px)").matches}>
    <summary>Settings${used ? html` <span class="count">${used} set</span>` : ""}</summary>
    <div class="fields">
      <label class="field">System prompt<textarea rows="4" value=${told.system} onInput=${set("system")} placeholder="None"></textarea></label>
      <div class="pair">
        <label class="field">Temperature<input inputmode="decimal" value=${told.temperature} onInput=${set("temperature")} placeholder="the model's" /></label>
        <label class="field">Most tokens<input inputmode="numeric" value=${told.maxTokens} onInput=${set("maxTokens")} placeholder="no limit" /></label>
      </div>
      ${json("schema", "JSON schema of the answer", told.schema ? 9 : 2)}
      ${json("tools", "Tools", told.tools ? 12 : 2)}
      <p class="small muted">You type what a tool answers. Everything stays in this tab.</p>
    </div>
  </details>`;
}
