// The SQL box: one SELECT over the tables.
import { ask, link } from "./address.js";

const EXAMPLES = {
  "an example…": "",
  "why clips were rejected": "SELECT split_part(reason, ' ', 1) AS why, count(*) AS clips\nFROM decisions WHERE NOT keep GROUP BY ALL ORDER BY clips DESC",
  "kept and rejected by source": "SELECT uri, count(*) FILTER (keep) AS kept, count(*) FILTER (NOT keep) AS rejected\nFROM dataset GROUP BY uri ORDER BY rejected DESC LIMIT 50",
  "captions that disagree with their clip": "SELECT clip_id, kind, clip_score, text FROM captions\nWHERE clip_score IS NOT NULL ORDER BY clip_score LIMIT 50",
  "what people said": "SELECT created_at, author, keep, note, clip_id FROM overrides ORDER BY created_at DESC",
  "columns of a table": "DESCRIBE clips",
};

export function sql() {
  const place = document.getElementById("view-sql");
  if (place.firstChild) return;
  const text = el("textarea", { id: "sql", rows: 7, maxlength: 20000, spellcheck: "false", "aria-label": "SQL",
    onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); } });
  text.value = EXAMPLES["why clips were rejected"];
  const told = el("output", { class: "hint", id: "sql-told" }), found = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answer" });
  const examples = el("select", { "aria-label": "Examples", onchange: () => { if (examples.value) text.value = examples.value; } },
    Object.entries(EXAMPLES).map(([name, value]) => el("option", { value }, name)));
  const button = el("button", { type: "button", onclick: () => run() }, "Ask (Ctrl+Enter)");
  async function run() {
    button.disabled = true;
    told.textContent = "Asking…";
    const began = performance.now();
    try {
      const answer = await ask("/api/sql", { body: { sql: text.value } });
      found.replaceChildren(tableOf(answer));
      const cut = [answer.is_cut ? "the first of more" : null, answer.n_cut_cells ? `${number(answer.n_cut_cells)} long texts cut` : null].filter(Boolean);
      told.textContent = `${number(answer.rows.length)} rows in ${((performance.now() - began) / 1000).toFixed(2)} s${cut.length ? ` (${cut.join(", ")}; reelmill query gives all)` : ""}`;
    } catch (error) {
      told.textContent = error.message;
      found.replaceChildren();
    }
    button.disabled = false;
  }
  place.append(el("section", {}, el("h2", {}, "SQL"), el("p", { class: "hint" },
    "The views are sources, clips, decisions, overrides, captions, shards, latents, and dataset, which joins them with one row per clip. One SELECT at a time; nothing can be changed. An answer shows 1,000 rows at most and may take 30 seconds."),
    text, el("div", { class: "filters" }, button, examples, told), found));
}

function tableOf(answer) {
  const is_number = answer.types.map((type) => /^(u?int|float|double|decimal|halffloat)/.test(type));
  const cell = (value, i) => el("td", { class: value === null ? "null" : is_number[i] ? "num" : null },
    value === null ? "null" : answer.columns[i] === "clip_id" ? link({ clip: String(value) }, String(value)) : is_number[i] && typeof value === "number" && !Number.isInteger(value) ? short(value) : String(value));
  return el("table", {}, el("thead", {}, el("tr", {}, answer.columns.map((name, i) => el("th", { scope: "col", class: is_number[i] ? "num" : null }, name)))),
    el("tbody", {}, answer.rows.map((row) => el("tr", {}, row.map(cell)))));
}
