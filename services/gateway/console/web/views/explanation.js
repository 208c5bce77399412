// Where a model would go and why.

import { useEffect, useState } from "../vendor/hooks.js";
import { bytes, seconds } from "../app/format.js";
import { get } from "../app/http.js";
import { load } from "../app/operations.js";
import { Failure, Skeleton, State, html } from "../app/parts.js";
import { mayOperate } from "../app/state.js";

const VERDICTS = {
  already_loaded: ["ready", "loaded"], free_fit: ["ready", "fits"], evict: ["draining", "after evictions"],
  wait: ["waiting", "would wait"], impossible: ["failed", "nowhere"],
};

export function Explanation({ model }) {
  const [told, setTold] = useState(null);
  const [error, setError] = useState(null);
  const ask = () => {
    setError(null);
    get(`explain?model=${encodeURIComponent(model)}`).then(setTold, setError);
  };
  useEffect(ask, [model]);
  if (error) return html`<${Failure} error=${error} retry=${ask} />`;
  if (!told) return html`<${Skeleton} lines="5" />`;
  const [state, word] = VERDICTS[told.verdict] ?? ["absent", told.verdict];
  return html`<section>
      <p><${State} of=${state} word=${word} /></p>
      <p class="verdict">${told.summary}</p>
      <p class="small muted">Needs ${bytes(told.required_bytes)}${told.footprint_source ? `, by ${told.footprint_source}` : ""}. As of now; nothing was changed.</p>
      <div class="buttons"><button onClick=${ask}>Ask again</button></div>
    </section>
    <section><h3>Neurons, in order of preference</h3>
      <ol class="candidates">${told.candidates.map((one, rank) => html`<li key=${one.neuron}>
        <div class="line"><span class="muted">${rank + 1}</span><b>${one.neuron}</b>
          <${State} of=${one.feasible ? (one.evicts.length ? "draining" : "ready") : "failed"} word=${one.feasible ? (one.evicts.length ? "evicts" : "fits") : "refused"} />
          ${one.feasible && told.verdict !== "already_loaded" && html`<button disabled=${!mayOperate.value} onClick=${() => load(model, one.neuron)}>Load here</button>`}</div>
        <p class="small">${one.reason}</p>
        <p class="small muted">${bytes(one.free_bytes)} free${one.evicts.length ? ` · would evict ${one.evicts.join(", ")}` : ""}${one.predicted != null ? ` · ~${seconds(one.predicted)}` : ""}</p>
      </li>`)}</ol>
    </section>`;
}
