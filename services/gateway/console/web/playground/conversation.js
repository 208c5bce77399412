// One conversation with one model, as signals; and one answer on its way.

import { signal } from "../vendor/signals.js";
import { ApiError, ask, events } from "../app/http.js";

const URL_ = "../v1/chat/completions";
let count = 0;

export function conversation(model = "") {
  return { id: ++count, model: signal(model), turns: signal([]), running: signal(null), error: signal(null), waits: signal("") };
}

// The body of a request, also for those who copy it.
export function bodyOf(model, settings, messages) {
  const body = { model, messages: [...(settings.system ? [{ role: "system", content: settings.system }] : []), ...messages] };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.schema) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(settings.schema), strict: true } };
  if (settings.tools) body.tools = JSON.parse(settings.tools);
  return { ...body, stream: true, stream_options: { include_usage: true } };
}

// What the API is told of the turns: reasoning and figures are left out.
export function messagesOf(turns) {
  return turns.map((turn) => {
    if (turn.role !== "assistant") return turn.message;
    const message = { role: "assistant", content: turn.text.peek() || null };
    const calls = turn.calls.peek();
    if (calls.length) message.tool_calls = calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
    return message;
  });
}

function answer() {
  return {
    id: ++count, role: "assistant", text: signal(""), reasoning: signal(""), reasoned: signal(null), calls: signal([]),
    figures: signal(null), finish: signal(null), requestId: "",
  };
}

// Sends a conversation and follows its answer. The page is told at most ten times a second.
export async function send(talk, settings) {
  const stop = new AbortController();
  const turn = answer();
  const body = bodyOf(talk.model.peek(), settings, messagesOf(talk.turns.peek()));
  talk.error.value = null;
  talk.waits.value = "asked…";
  talk.running.value = stop;
  talk.turns.value = [...talk.turns.peek(), turn];
  const began = performance.now();
  const seen = { text: "", reasoning: "", calls: [], first: 0, firstText: 0, usage: null };
  const show = throttled(() => {
    turn.text.value = seen.text;
    turn.reasoning.value = seen.reasoning;
    turn.calls.value = seen.calls.map((call) => ({ ...call }));
  });
  try {
    const response = await ask(URL_, { body, signal: stop.signal });
    turn.requestId = response.headers.get("x-request-id") ?? "";
    for await (const { data, comment } of events(response)) {
      if (comment && comment !== "keep-alive" && !seen.first) talk.waits.value = comment;
      if (data === null || data === "[DONE]") continue;
      take(JSON.parse(data), turn, seen, began);
      if (seen.first) talk.waits.value = "";
      show();
    }
    if (!turn.finish.peek()) throw new ApiError("The answer ended before its end.", { requestId: turn.requestId });
  } catch (error) {
    if (error.name === "AbortError") turn.finish.value = "stopped";
    else {
      turn.finish.value = turn.finish.peek() ?? "failed";
      talk.error.value = error;
    }
  }
  show.now();
  turn.figures.value = figures(seen, began);
  if (seen.reasoning && turn.reasoned.peek() === null) turn.reasoned.value = (performance.now() - began - seen.first) / 1000;
  if (!seen.first && talk.error.peek()) talk.turns.value = talk.turns.peek().filter((one) => one !== turn);
  talk.waits.value = "";
  talk.running.value = null;
}

function take(chunk, turn, seen, began) {
  if (chunk.error) throw new ApiError(chunk.error.message, { requestId: turn.requestId });
  if (chunk.usage) seen.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const { content, reasoning_content: reasoning, tool_calls: calls } = choice.delta ?? {};
  if ((content || reasoning || calls) && !seen.first) seen.first = performance.now() - began;
  if (reasoning) seen.reasoning += reasoning;
  if ((content || calls) && seen.reasoning && turn.reasoned.peek() === null) turn.reasoned.value = (performance.now() - began - seen.first) / 1000;
  if (content) seen.text += content;
  for (const call of calls ?? []) {
    const known = (seen.calls[call.index] ??= { id: "", name: "", arguments: "" });
    known.id ||= call.id ?? "";
    known.name ||= call.function?.name ?? "";
    known.arguments += call.function?.arguments ?? "";
  }
  if (choice.finish_reason) turn.finish.value = choice.finish_reason;
}

// Times are measured in this page; tokens are the gateway's.
function figures(seen, began) {
  const took = performance.now() - began;
  const made = seen.usage?.completion_tokens ?? null;
  const decode = seen.first ? (took - seen.first) / 1000 : 0;
  return {
    first: seen.first || null,
    took,
    speed: made > 1 && decode > 0 ? (made - 1) / decode : null,
    prompt: seen.usage?.prompt_tokens ?? null,
    cached: seen.usage?.prompt_tokens_details?.cached_tokens ?? null,
    completion: made,
  };
}

function throttled(work) {
  let timer = null;
  const soon = () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, 100);
  };
  soon.now = () => {
    clearTimeout(timer);
    timer = null;
    work();
  };
  return soon;
}
