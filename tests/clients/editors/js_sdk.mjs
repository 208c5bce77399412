// The protocol's JavaScript SDK: one session of `cortex acp`, check by check.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { Readable, Writable } from "node:stream";
import { client, methods, ndJsonStream, PROTOCOL_VERSION } from "@agentclientprotocol/sdk";
import { assert, run, version } from "./suite.mjs";

const project = process.env.CORTEX_PROJECT;
const file = (name) => path.join(project, name);
const read = (name) => readFileSync(file(name), "utf8");
const updates = [];
const asked = [];
const { session } = methods.agent;
let connection, agent, sessionId;

// Says yes to everything, by the first option, and remembers what it is shown.
const editor = client({ name: "cortex-tests" })
  .onRequest(methods.client.session.requestPermission, ({ params: { toolCall, options } }) => {
    asked.push(toolCall);
    return { outcome: { outcome: "selected", optionId: options[0].optionId } };
  })
  .onNotification(methods.client.session.update, ({ params: { update } }) => {
    updates.push(update);
  });

async function prompt(text) {
  updates.length = 0;
  return await connection.agent.request(session.prompt, { sessionId, prompt: [{ type: "text", text }] });
}

const of = (kind) => updates.filter((update) => update.sessionUpdate === kind);
const said = () => of("agent_message_chunk").map((update) => update.content.text).join("");

async function anEditIsAskedForAndDone() {
  const [command, ...args] = process.env.CORTEX_AGENT.split(" ");
  agent = spawn(command, args, { cwd: project, stdio: ["pipe", "pipe", "inherit"] });
  const stream = ndJsonStream(Writable.toWeb(agent.stdin), Readable.toWeb(agent.stdout));
  connection = editor.connect(stream);
  await connection.agent.request(methods.agent.initialize, { protocolVersion: PROTOCOL_VERSION, clientCapabilities: {} });
  ({ sessionId } = await connection.agent.request(session.new, { cwd: project, mcpServers: [] }));
  const response = await prompt("change the greeting");
  assert.equal(response.stopReason, "end_turn");
  assert.equal(read("greeting.txt"), "hello fleet\n");
  assert.equal(asked.length, 1);
  assert.equal(said(), "Reading.The greeting is changed.");
}

async function aPlanIsShownAndPlanModeIsLeftByTheDialog() {
  await connection.agent.request(session.setMode, { sessionId, modeId: "plan" });
  const response = await prompt("plan a farewell");
  assert.equal(response.stopReason, "end_turn");
  assert.deepEqual(of("plan").at(-1).entries.map((entry) => entry.content), ["Write farewell.txt"]);
  assert.equal(asked.at(-1).kind, "switch_mode");
  assert.deepEqual(of("current_mode_update").map((update) => update.currentModeId), ["accept-edits"]);
  assert.equal(read("farewell.txt"), "bye\n");
}

async function undoTakesBackTheLastPromptAndNoOther() {
  await prompt("/undo");
  assert(!existsSync(file("farewell.txt")));
  assert.equal(read("greeting.txt"), "hello fleet\n");
  assert.match(said(), /1 prompt taken back/);
}

async function aSessionGoesOnAfterCompaction() {
  const compacted = await prompt("/compact");
  assert.equal(compacted.stopReason, "end_turn");
  assert.notEqual(said(), "");
  const response = await prompt("what did we do?");
  assert.equal(response.stopReason, "end_turn");
  assert.equal(said(), "We changed the greeting.");
}

await run("@agentclientprotocol/sdk (JavaScript)", version("@agentclientprotocol/sdk"), [
  ["tools", anEditIsAskedForAndDone],
  ["tools", aPlanIsShownAndPlanModeIsLeftByTheDialog],
  ["tools", undoTakesBackTheLastPromptAndNoOther],
  ["basics", aSessionGoesOnAfterCompaction],
]);
agent.stdin.end();
