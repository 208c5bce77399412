// Vercel's AI SDK through its OpenAI (chat, responses), OpenAI-compatible and Anthropic providers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { assert, run, target, throws, until, version } from "./suite.mjs";

const openai = createOpenAI({ baseURL: `${target.url}/v1`, apiKey: "none" });
const compatible = createOpenAICompatible({
  name: "cortex", baseURL: `${target.url}/v1`, apiKey: "none", supportsStructuredOutputs: true,
});
const anthropic = createAnthropic({ baseURL: `${target.url}/v1`, apiKey: "none" });
globalThis.AI_SDK_LOG_WARNINGS = false;
const providers = {
  chat: (name) => openai.chat(name),
  responses: (name) => openai.responses(name),
  compatible: (name) => compatible(name),
  messages: (name) => anthropic(name),
};
const ORDER = '@call add {"a": 12, "b": 30}';
const Sum = z.object({ a: z.number().int(), b: z.number().int() });
const add = tool({ description: "Adds.", inputSchema: Sum, execute: async ({ a, b }) => String(a + b) });

async function everywhere(check) {
  for (const [name, provider] of Object.entries(providers)) {
    try {
      await check(provider);
    } catch (error) {
      error.message = `${name}: ${error.message}`;
      throw error;
    }
  }
}

async function generate() {
  await everywhere(async (provider) => {
    const { text, usage } = await generateText({ model: provider(target.scripted), prompt: "Hello?", maxRetries: 0 });
    assert.equal(text, "Hello from the scripted neuron.");
    assert(usage.outputTokens > 0);
  });
}

async function embeddings() {
  const { embeddings } = await embedMany({ model: openai.embedding(target.embedding), values: ["cat", "dog"] });
  assert.equal(embeddings.length, 2);
}

async function stream() {
  await everywhere(async (provider) => {
    const result = streamText({ model: provider(target.model), prompt: "Say hello.", maxOutputTokens: 16, maxRetries: 0, onError: () => {} });
    let text = "";
    for await (const part of result.fullStream) {
      assert.notEqual(part.type, "error", String(part.error));
      if (part.type === "text-delta") text += part.text;
    }
    assert(text);
  });
}

async function reasoning() {
  const providerOptions = { openai: { forceReasoning: true, reasoningSummary: "auto" } };
  await everywhere(async (provider) => {
    const { reasoningText, text } = await generateText({ model: provider(target.scripted), prompt: "@think Hm.", maxRetries: 0, providerOptions });
    assert.equal(text, "Hello from the scripted neuron.");
    // the OpenAI chat provider has no place for reasoning
    if (provider !== providers.chat) assert.equal(reasoningText, "Hm. Done.");
  });
}

async function roundTrip() {
  await everywhere(async (provider) => {
    for (const make of [generateText, streamText]) {
      const result = await make({ model: provider(target.scripted), prompt: ORDER, tools: { add }, stopWhen: stepCountIs(3), maxRetries: 0 });
      assert.equal(await result.text, "The tool said: 42");
    }
  });
}

async function requiredTool() {
  await everywhere(async (provider) => {
    const { toolCalls } = await generateText({
      model: provider(target.model), prompt: "Add 1 and 2.", tools: { add }, toolChoice: "required", maxRetries: 0, maxOutputTokens: 500,
    });
    Sum.parse(toolCalls[0].input);
  });
}

async function objects() {
  await everywhere(async (provider) => {
    const { output } = await generateText({
      model: provider(target.model), prompt: "Add 1 and 2.", output: Output.object({ schema: Sum }), maxRetries: 0, maxOutputTokens: 500,
    });
    Sum.parse(output);
  });
}

async function unknownModel() {
  await everywhere(async (provider) => {
    await throws(
      () => generateText({ model: provider("no-such-model"), prompt: "Hello?", maxRetries: 0 }),
      (error) => {
        assert.equal(error.statusCode, 404);
        assert.match(error.message, /no-such-model/);
      },
    );
  });
}

async function workerLostInMidStream() {
  await everywhere(async (provider) => {
    const result = streamText({ model: provider(target.scripted), prompt: "@break", maxRetries: 0, onError: () => {} });
    const kinds = [];
    for await (const part of result.fullStream) kinds.push(part.type);
    assert(kinds.includes("text-delta") && kinds.includes("error"), String(kinds));
  });
}

async function leavingStopsTheModel() {
  await everywhere(async (provider) => {
    const cancelled = async () =>
      Number((await generateText({ model: provider(target.scripted), prompt: "@cancelled" })).text);
    const before = await cancelled();
    const abort = new AbortController();
    const result = streamText({ model: provider(target.scripted), prompt: "@stall", abortSignal: abort.signal, onError: () => {} });
    for await (const part of result.fullStream) if (part.type === "text-delta") abort.abort();
    await until(async () => (await cancelled()) > before);
  });
}

await run("Vercel AI SDK", version("ai"), [
  ["basics", generate],
  ["basics", embeddings],
  ["stream", stream],
  ["stream", reasoning],
  ["tools", roundTrip],
  ["tools", requiredTool],
  ["structured output", objects],
  ["errors", unknownModel],
  ["errors", workerLostInMidStream],
  ["cancel", leavingStopsTheModel],
]);
