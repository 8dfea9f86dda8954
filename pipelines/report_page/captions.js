// Captions: how many, how long, of which words --------------------------------------------------------------------
const percent = (share) => `${(100 * share).toLocaleString("en", { maximumFractionDigits: share < 0.1 ? 1 : 0 })}\u00a0%`;

const GOOD_STATUS = { ok: "good", error: "failed" };

// The table of captioners; what became of their answers is its last column. On a phone each row is a card (page.css).
function captionTable(rows, statuses) {
  const head = ["kind", "captioner", "model", "captions", "distinct", "words", "CLIP score", "remarks", "answers"];
  const right = new Set([3, 4, 5, 6]), same = (a, b) => a.kind === b.kind && a.captioner === b.captioner && a.model === b.model;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Captions by captioner" }, el("table", { class: "captioners" },
    el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { class: right.has(i) ? "num" : null, scope: "col" }, text)))),
    el("tbody", {}, rows.map((row) => el("tr", {},
      [row.kind, row.captioner, row.model, number(row.with_text), number(row.distinct_texts),
        row.words === null ? "" : row.words.toFixed(1), row.clip_score === null ? "" : row.clip_score.toFixed(3), (row.flags || []).join(", ")]
        .map((text, i) => el("td", { class: right.has(i) ? "num" : i === 7 ? "remarks" : null, "data-label": head[i] }, text ?? "")),
      el("td", { "data-label": "answers" }, answers(statuses.filter((status) => same(status, row)))))))));
}

function answers(rows) {
  const parts = rows.map((row) => ({ name: row.status, n: row.n, outcome: GOOD_STATUS[row.status] || "rejected" }));
  const drawn = bar(parts, parts.reduce((all, part) => all + part.n, 0));
  return el("div", { class: "answers" }, drawn, el("ul", { class: "sum" }, parts.map((part) =>
    el("li", { style: { "--dot": COLOUR[part.outcome], "--fade": part.fade } }, `${number(part.n)} ${plain(part.name)}`))));
}

// One card per kind: how long, how well CLIP agrees, which words.
function kindCard(kind) {
  const [few, middle, many] = kind.tenths, clip = kind.clip_score, name = kind.kind ?? "no kind";
  return el("div", { class: "card wide kind" }, el("h3", {}, `${plain(name)} captions`),
    el("div", { class: "three" },
      el("div", {}, el("p", { class: "hint" }, "Words per caption"), histogram({ ...kind.words, name: `words of ${name}`, unit: "captions" }),
        el("p", { class: "foot" }, `median ${short(middle)}, nine in ten from ${short(few)} up, one in ten above ${short(many)}, longest ${short(kind.words.max)}`)),
      clip.n ? el("div", {}, el("p", { class: "hint" }, "CLIP score: cosine of image and caption embeddings"),
        histogram({ ...clip, name: `CLIP score of ${name}`, unit: "captions" }),
        el("p", { class: "foot" }, `median ${short(clip.median)}, max ${short(clip.max)}${clip.nulls ? `, ${number(clip.nulls)} null` : ""}`)) : null,
      el("div", {}, el("p", { class: "hint" }, "Most frequent words, by share of captions"),
        el("ul", { class: "words" }, kind.top.map((row) => el("li", {}, el("b", {}, row.word), ` ${percent(row.share)}`))),
        el("p", { class: "foot" }, `${number(kind.vocabulary)} different words; ${number(kind.n_distinct)} of ${number(kind.n)} texts are distinct (${percent(kind.n_distinct / kind.n)})`))));
}

function cameraCard(found) {
  return el("div", { class: "card wide" }, el("h3", {}, `words by camera motion, ${found.kind}`),
    el("p", { class: "hint" }, "Words that captions of clips with this camera motion hold more often, by ten points at least: the share of captions here, and of all."),
    el("div", { class: "by-camera" }, found.rows.map((row) => el("div", {},
      el("div", {}, el("b", {}, plain(row.camera)), ` ${number(row.n)} captions`),
      el("ul", {}, row.words.map((word) => el("li", {}, el("b", {}, word.word), ` ${percent(word.share)}`, el("span", {}, ` (all ${percent(word.overall)})`))))))));
}

function captionParts(rows, facts) {
  const cost = facts.cost, told = [
    cost.usd ? `cost $${cost.usd.toLocaleString("en", { maximumFractionDigits: 2 })}` : null,
    cost.tokens_in ? `${number(cost.tokens_in)} tokens read` : null, cost.tokens_out ? `${number(cost.tokens_out)} tokens written` : null,
    cost.latency_ms ? `median answer after ${short(cost.latency_ms / 1000)} s` : null, cost.retries ? `${number(cost.retries)} retries` : null];
  return [captionTable(rows, facts.status), el("p", { class: "foot" }, told.filter(Boolean).join(" · ")),
    el("div", { class: "grid" }, facts.kinds.slice(0, 5).map(kindCard), facts.camera && facts.camera.rows.length ? cameraCard(facts.camera) : null),
    facts.sampled ? el("p", { class: "foot" }, `Words are counted in a sample of ${number(facts.sampled)} captions.`) : null];
}
