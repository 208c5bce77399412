// The anthropic SDK for Node.
import Anthropic from "@anthropic-ai/sdk";
import { assert, run, target, throws, until, version } from "./suite.mjs";

const client = new Anthropic({ baseURL: target.url, apiKey: "none", maxRetries: 0 });
const ASK = [{ role: "user", content: "Say hello." }];
const ORDER = { role: "user", content: '@call add {"a": 12, "b": 30}' };
const ADD = {
  name: "add",
  input_schema: {
    type: "object",
    properties: { a: { type: "integer" }, b: { type: "integer" } },
    required: ["a", "b"],
    additionalProperties: false,
  },
};

async function message() {
  const answer = await client.messages.create({ model: target.model, max_tokens: 16, messages: ASK });
  assert(answer.content[0].text);
  assert(answer._request_id);
}

async function countTokens() {
  const counted = await client.messages.countTokens({ model: target.model, messages: ASK });
  assert(counted.input_tokens > 0);
}

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert(listed.includes(target.model));
}

async function streamHelper() {
  const stream = client.messages.stream({ model: target.model, max_tokens: 16, messages: ASK });
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  assert.equal(final.content[0].text, text);
}

async function thinking() {
  const stream = client.messages.stream({
    model: target.scripted,
    max_tokens: 2000,
    messages: [{ role: "user", content: "@think Hm." }],
    thinking: { type: "enabled", budget_tokens: 1024 },
  });
  const final = await stream.finalMessage();
  assert.deepEqual(final.content.map((block) => block.type), ["thinking", "text"]);
  assert(final.content[0].signature);
}

async function roundTrip() {
  const stream = client.messages.stream({ model: target.scripted, max_tokens: 99, messages: [ORDER], tools: [ADD] });
  const first = await stream.finalMessage();
  const use = first.content.at(-1);
  assert.deepEqual([first.stop_reason, use.input], ["tool_use", { a: 12, b: 30 }]);
  const final = await client.messages.create({
    model: target.scripted,
    max_tokens: 99,
    tools: [ADD],
    messages: [
      ORDER,
      { role: "assistant", content: first.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "42" }] },
    ],
  });
  assert.equal(final.content[0].text, "The tool said: 42");
}

async function anyTool() {
  const answer = await client.messages.create({
    model: target.model, max_tokens: 500, messages: ASK, tools: [ADD], tool_choice: { type: "any" },
  });
  assert.deepEqual(Object.keys(answer.content.at(-1).input).sort(), ["a", "b"]);
}

async function outputFormat() {
  const answer = await client.messages.create({
    model: target.model, max_tokens: 500, messages: ASK,
    output_config: { format: { type: "json_schema", schema: ADD.input_schema } },
  });
  assert.deepEqual(Object.keys(JSON.parse(answer.content[0].text)).sort(), ["a", "b"]);
}

async function unknownModel() {
  await throws(
    () => client.messages.create({ model: "no-such-model", max_tokens: 9, messages: ASK }),
    (error) => assert.deepEqual([error.status, error.error.error.type], [404, "not_found_error"]),
  );
}

async function promptBeyondTheWindow() {
  await throws(
    () => client.messages.create({ model: target.model, max_tokens: 9, messages: [{ role: "user", content: "word ".repeat(40000) }], stream: true }),
    (error) => assert.match(error.message, /prompt is too long: \d+ tokens > \d+ maximum/),
  );
}

async function workerLostInMidStream() {
  const stream = client.messages.stream({ model: target.scripted, max_tokens: 99, messages: [{ role: "user", content: "@break" }] });
  let text = "";
  stream.on("text", (piece) => (text += piece));
  await throws(() => stream.finalMessage(), (error) => assert(error instanceof Anthropic.APIError));
  assert(text.startsWith("one"));
}

async function leavingStopsTheModel() {
  const before = await cancelled();
  const stream = client.messages.stream({ model: target.scripted, max_tokens: 99, messages: [{ role: "user", content: "@stall" }] });
  for await (const _ of stream) break;
  stream.abort();
  await until(async () => (await cancelled()) > before);
}

async function cancelled() {
  const answer = await client.messages.create({ model: target.scripted, max_tokens: 9, messages: [{ role: "user", content: "@cancelled" }] });
  return Number(answer.content[0].text);
}

await run("anthropic (Node)", version("@anthropic-ai/sdk"), [
  ["basics", message],
  ["basics", countTokens],
  ["basics", models],
  ["stream", streamHelper],
  ["stream", thinking],
  ["tools", roundTrip],
  ["tools", anyTool],
  ["structured output", outputFormat],
  ["errors", unknownModel],
  ["errors", promptBeyondTheWindow],
  ["errors", workerLostInMidStream],
  ["cancel", leavingStopsTheModel],
]);
