// The same request for a terminal and for programs; never with the key itself.

const base = () => new URL("..", location.href).href.replace(/\/$/, "");

function python(value, depth = 0) {
  const pad = "    ".repeat(depth + 1);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((one) => pad + python(one, depth + 1)).join(",\n")},\n${"    ".repeat(depth)}]` : "[]";
  if (typeof value === "object") {
    const rows = Object.entries(value).map(([name, one]) => `${pad}${JSON.stringify(name)}: ${python(one, depth + 1)}`);
    return rows.length ? `{\n${rows.join(",\n")},\n${"    ".repeat(depth)}}` : "{}";
  }
  return JSON.stringify(value);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export const LANGUAGES = {
  curl: (body, keyed) => [
    `curl -N ${base()}/v1/chat/completions \\`,
    ...(keyed ? [`  -H "authorization: Bearer $CORTEX_API_KEY" \\`] : []),
    `  -H 'content-type: application/json' \\`,
    `  -d ${quoted(JSON.stringify(body, null, 2))}`,
  ].join("\n"),
  Python: (body, keyed) => [
    "import os\n\nfrom openai import OpenAI\n",
    `client = OpenAI(base_url="${base()}/v1", api_key=${keyed ? 'os.environ["CORTEX_API_KEY"]' : '"none"'})`,
    `stream = client.chat.completions.create(\n${Object.entries(body).map(([name, value]) => `    ${name}=${python(value, 1)},`).join("\n")}\n)`,
    "for chunk in stream:",
    "    if chunk.choices:",
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
  ].join("\n").replace(keyed ? "" : "import os\n\n", ""),
  JavaScript: (body, keyed) => [
    'import OpenAI from "openai";\n',
    `const client = new OpenAI({ baseURL: "${base()}/v1", apiKey: ${keyed ? "process.env.CORTEX_API_KEY" : '"none"'} });`,
    `const stream = await client.chat.completions.create(${JSON.stringify(body, null, 2)});`,
    "for await (const chunk of stream) {",
    '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
    "}",
  ].join("\n"),
};
