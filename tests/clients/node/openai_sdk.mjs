// The openai SDK for Node.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { assert, run, target, throws, until, version } from "./suite.mjs";

const client = new OpenAI({ baseURL: `${target.url}/v1`, apiKey: "none", maxRetries: 0 });
const ASK = [{ role: "user", content: "Say hello." }];
const ORDER = [{ role: "user", content: '@call add {"a": 12, "b": 30}' }];
const parameters = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
  additionalProperties: false,
};
const TOOLS = [{ type: "function", function: { name: "add", parameters, strict: true } }];
const RESPONSE_TOOLS = [{ type: "function", name: "add", parameters, strict: true }];
const Sum = z.object({ a: z.number().int(), b: z.number().int() });

async function chat() {
  const answer = await client.chat.completions.create({ model: target.model, messages: ASK, max_tokens: 16 });
  assert(answer.choices[0].message.content);
  assert(answer._request_id);
}

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  assert(listed.includes(target.model));
}

async function embeddings() {
  const answer = await client.embeddings.create({ model: target.embedding, input: ["cat", "dog"] });
  assert.equal(answer.data.length, 2);
  assert.equal(typeof answer.data[0].embedding[0], "number");
}

async function chatStream() {
  let text = "";
  const stream = await client.chat.completions.create({ model: target.model, messages: ASK, max_tokens: 16, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert(text);
}

async function responseStreamHelper() {
  const stream = client.responses.stream({ model: target.model, input: "Say hello.", max_output_tokens: 16 });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, text);
}

async function toolRunner() {
  const made = [];
  const tool = {
    type: "function",
    function: {
      name: "add",
      parameters,
      parse: JSON.parse,
      function: ({ a, b }) => (made.push([a, b]), String(a + b)),
    },
  };
  const runner = client.chat.completions.runTools({ model: target.scripted, messages: ORDER, tools: [tool], stream: true });
  assert.equal(await runner.finalContent(), "The tool said: 42");
  assert.deepEqual(made, [[12, 30]]);
}

async function requiredTool() {
  const answer = await client.chat.completions.create({ model: target.model, messages: ASK, tools: TOOLS, tool_choice: "required" });
  Sum.parse(JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
}

async function roundTripInResponses() {
  const first = await client.responses.create({ model: target.scripted, input: ORDER, tools: RESPONSE_TOOLS });
  const call = first.output.at(-1);
  const final = await client.responses.create({
    model: target.scripted,
    input: [...ORDER, ...first.output, { type: "function_call_output", call_id: call.call_id, output: "42" }],
    tools: RESPONSE_TOOLS,
  });
  assert.equal(final.output_text, "The tool said: 42");
}

async function parse() {
  const chat = await client.chat.completions.parse({
    model: target.model, messages: ASK, temperature: 0, response_format: zodResponseFormat(Sum, "sum"),
  });
  Sum.parse(chat.choices[0].message.parsed);
  const response = await client.responses.parse({
    model: target.model, input: "Add 1 and 2.", temperature: 0, text: { format: zodTextFormat(Sum, "sum") },
  });
  Sum.parse(response.output_parsed);
}

async function unknownModel() {
  await throws(
    () => client.chat.completions.create({ model: "no-such-model", messages: ASK }),
    (error) => assert.deepEqual([error.status, error.code], [404, "model_not_found"]),
  );
}

async function promptBeyondTheWindow() {
  await throws(
    () => client.responses.create({ model: target.model, input: "word ".repeat(40000), stream: true }),
    (error) => assert.deepEqual([error.status, error.code], [400, "context_length_exceeded"]),
  );
}

async function workerLostInMidStream() {
  let text = "";
  const stream = await client.chat.completions.create({
    model: target.scripted, messages: [{ role: "user", content: "@break" }], stream: true,
  });
  await throws(
    async () => { for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ""; },
    (error) => assert(error instanceof OpenAI.APIError),
  );
  assert(text.startsWith("one"));
}

async function leavingStopsTheModel() {
  const before = await cancelled();
  const stream = await client.chat.completions.create({
    model: target.scripted, messages: [{ role: "user", content: "@stall" }], stream: true,
  });
  for await (const _ of stream) break;
  await until(async () => (await cancelled()) > before);
}

async function cancelled() {
  const answer = await client.chat.completions.create({
    model: target.scripted, messages: [{ role: "user", content: "@cancelled" }],
  });
  return Number(answer.choices[0].message.content);
}

await run("openai (Node)", version("openai"), [
  ["basics", chat],
  ["basics", models],
  ["basics", embeddings],
  ["stream", chatStream],
  ["stream", responseStreamHelper],
  ["tools", toolRunner],
  ["tools", requiredTool],
  ["tools", roundTripInResponses],
  ["structured output", parse],
  ["errors", unknownModel],
  ["errors", promptBeyondTheWindow],
  ["errors", workerLostInMidStream],
  ["cancel", leavingStopsTheModel],
]);
