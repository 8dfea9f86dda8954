"use strict";
// Builds the page from the JSON inside it. Every text becomes a text node (el, svg); nothing is parsed as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const number = (n) => n.toLocaleString("en");
const short = (x) => (x === null || x === undefined ? "null" : Number(x.toPrecision(3)).toLocaleString("en"));
const plain = (name) => name.replace(/_s$/, "").replaceAll("_", " ");
const COLOUR = { good: "var(--good)", rejected: "var(--rejected)", failed: "var(--failed)", waiting: "var(--waiting)" };

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function section(id, title, hint, ...content) {
  document.getElementById("main").append(
    el("section", { id, "aria-labelledby": `${id}-title` },
      el("h2", { id: `${id}-title` }, title), hint ? el("p", { class: "hint" }, hint) : null, ...content));
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
}

// Funnel ------------------------------------------------------------------------------------------------------
function bar(parts, total) {
  let shade = 0;
  return el("div", { class: "bar", "aria-hidden": "true" }, parts.filter((part) => part.n).map((part) => {
    part.fade = part.outcome === "rejected" ? Math.max(0.35, 1 - 0.14 * shade++) : 1;
    return el("i", { class: part.outcome, title: `${part.name}: ${number(part.n)}`,
      style: { flex: `${part.n / Math.max(1, total)} 1 0`, opacity: part.fade } });
  }));
}

function stage(row) {
  const sum = row.parts.reduce((all, part) => all + part.n, 0);
  const drawn = bar(row.parts, row.total);
  const told = row.parts.map((part) =>
    el("li", { style: { "--dot": COLOUR[part.outcome], "--fade": part.fade } }, `${number(part.n)} ${part.name}`));
  if (sum !== row.total) told.push(el("li", { class: "wrong" }, `does not add up: ${number(row.total - sum)} missing`));
  return el("div", { class: "stage" },
    el("div", { class: "head" }, el("div", { class: "total" }, number(row.total)), el("div", { class: "unit" }, row.name)),
    el("div", {}, drawn, el("ul", { class: "sum" }, told)));
}

// Scores ------------------------------------------------------------------------------------------------------
function histogram(score) {
  const W = 330, H = 104, base = 78, n = score.kept.length;
  const [low, high] = score.edges;
  const x = (value) => ((value - low) / (high - low)) * W;
  const top = Math.max(1, ...score.kept.map((k, i) => k + score.rejected[i]));
  const drawing = svg("svg", { viewBox: `0 -14 ${W} ${H + 4}`, role: "img", "aria-label": `histogram of ${plain(score.name)}` });
  for (const limit of score.limits) {
    const at = x(limit.bound), left = limit.op === "<" ? 0 : at;
    drawing.append(svg("rect", { class: "cutoff", x: left, y: 0, width: limit.op === "<" ? at : W - at, height: base }));
  }
  for (let i = 0; i < n; i++) {
    const tall = (count) => (count ? Math.max(1.2, (count / top) * base) : 0);
    const kept = tall(score.kept[i]), rejected = tall(score.rejected[i]), step = W / n;
    const told = `${short(low + ((high - low) * i) / n)} to ${short(low + ((high - low) * (i + 1)) / n)}: ` +
      `${number(score.kept[i])} kept, ${number(score.rejected[i])} rejected`;
    drawing.append(svg("g", {}, svg("title", {}, told),
      svg("rect", { x: i * step, y: 0, width: step, height: base, fill: "transparent" }),
      svg("rect", { class: "k", x: i * step + 0.5, y: base - kept, width: step - 1, height: kept }),
      svg("rect", { class: "r", x: i * step + 0.5, y: base - kept - rejected, width: step - 1, height: rejected })));
  }
  drawing.append(svg("line", { class: "axis", x1: 0, x2: W, y1: base, y2: base }),
    svg("text", { x: 0, y: base + 15 }, short(low)),
    svg("text", { x: W, y: base + 15, "text-anchor": "end" }, short(high) + (score.over ? " and above" : "")));
  for (const limit of score.limits) {
    const at = x(limit.bound);
    const anchor = at < 60 ? "start" : at > W - 60 ? "end" : "middle";
    drawing.append(svg("line", { class: "limit", x1: at, x2: at, y1: -2, y2: base }),
      svg("text", { class: "limit-text", x: at, y: -5, "text-anchor": anchor }, `rejected ${limit.op} ${short(limit.bound)}`));
  }
  return drawing;
}

function scoreCard(score) {
  const foot = [`median ${short(score.median)}`, `max ${short(score.max)}`, `${number(score.n)} measured`];
  if (score.nulls) foot.push(`${number(score.nulls)} null`);
  return el("div", { class: "card" }, el("h3", {}, plain(score.name)), el("p", { class: "hint" }, score.about),
    histogram(score), el("p", { class: "foot" }, foot.join(" · ")),
    score.reasons.length ? el("p", { class: "foot" }, `null because: ${score.reasons.join("; ")}`) : null);
}

function mosaic(title, rows) {
  const most = Math.max(...rows.map((row) => row.kept + row.rejected));
  return el("div", { class: "card" }, el("h3", {}, title), el("div", { class: "mosaic" }, rows.slice(0, 12).map((row) => {
    const parts = [{ name: "kept", n: row.kept, outcome: "good" }, { name: "rejected", n: row.rejected, outcome: "rejected" }];
    const drawn = bar(parts, row.kept + row.rejected);
    drawn.style.width = `${(100 * (row.kept + row.rejected)) / most}%`;
    return el("div", {}, el("span", {}, plain(row.name)), drawn, el("span", {}, `${number(row.kept)} of ${number(row.kept + row.rejected)} kept`));
  })), rows.length > 12 ? el("p", { class: "foot" }, `and ${number(rows.length - 12)} more`) : null);
}

// Clips -------------------------------------------------------------------------------------------------------
const FACTS = ["motion", "luma", "black_ratio", "static_ratio", "sharpness", "text_area", "overlay_area", "aesthetic", "clip_text_sim", "nsfw"];

function film(clip) {
  const wide = clip.picture_w / clip.picture_h >= 16 / 9;
  return el("div", { class: "film", style: {
    "aspect-ratio": `${clip.picture_w} / ${clip.picture_h}`, [wide ? "width" : "height"]: "100%",
    "background-image": `url(${clip.picture})`, "background-size": `${clip.frames * 100}% 100%`,
    "animation-timing-function": clip.frames > 1 ? `steps(${clip.frames}, jump-none)` : "linear",
    "animation-delay": "-0.9s" } });
}

function captionOf(row) {
  const by = [row.kind, row.captioner, row.chosen ? null : "not chosen", row.status === "ok" ? null : row.status];
  return el("p", { class: row.text ? "cap" : "cap bad" }, el("b", {}, by.filter(Boolean).join(" · ")),
    row.text || row.error || row.text_raw || "(no text)");
}

function clipCard(clip) {
  const kept = clip.keep !== false;
  const chosen = clip.captions.filter((row) => row.chosen || row.kind === "original");
  const first = chosen.length ? chosen : clip.captions.slice(0, 1);
  const given = clip.source_caption && !clip.captions.some((row) => row.kind === "original")
    ? el("p", { class: "cap" }, el("b", {}, "with the file"), clip.source_caption) : null;
  const rest = clip.captions.filter((row) => !first.includes(row));
  const file = (clip.uri || "unknown source").split("/").pop();
  const card = el("article", { class: "card clip" },
    el("div", { class: "screen", tabindex: "0", role: "img", "aria-label": `frames of clip ${clip.clip_id}` },
      clip.picture ? film(clip) : el("p", {}, `no picture: ${clip.no_picture}`),
      clip.keep === null ? null : el("span", { class: kept ? "mark" : "mark no" }, kept ? "kept" : "rejected")),
    el("div", { class: "text" },
      (clip.reasons || []).map((reason) => el("p", { class: "why" }, reason)),
      first.map(captionOf), given,
      el("p", { class: "facts" }, `${file}, ${clip.start_s.toFixed(2)} to ${clip.end_s.toFixed(2)} s · ${clip.width}×${clip.height}` + (clip.camera ? ` · ${plain(clip.camera)}` : "")),
      el("details", {}, el("summary", {}, "Scores and more"), rest.map(captionOf),
        el("dl", {}, FACTS.map((name) => [el("dt", {}, plain(name)), el("dd", {}, short(clip[name]))]),
          el("dt", {}, "frames"), el("dd", {}, `${clip.n_frames} at ${short(clip.fps)} per second`),
          clip.bucket ? [el("dt", {}, "bucket"), el("dd", {}, clip.bucket)] : [],
          el("dt", {}, "clip"), el("dd", { class: "mono" }, clip.clip_id)))));
  return { card, kept, reasons: (clip.reasons || []).map((reason) => reason.split(" ")[0]),
    words: [file, clip.clip_id, clip.source_caption || "", ...clip.captions.map((row) => row.text || "")].join("\n").toLowerCase() };
}

function gallery() {
  const cards = data.gallery.map(clipCard), wall = el("div", { class: "gallery" }, cards.map((c) => c.card));
  const state = { which: "all", reason: "", words: "" }, told = el("output", { "aria-live": "polite" });
  const choices = ["all", "kept", "rejected"].map((which) =>
    el("button", { type: "button", "aria-pressed": which === "all", onclick: () => { state.which = which; show(); } }, which[0].toUpperCase() + which.slice(1)));
  const names = [...new Set(cards.flatMap((c) => c.reasons))].sort();
  const select = el("select", { "aria-label": "Reason", onchange: () => { state.reason = select.value; show(); } },
    el("option", { value: "" }, "any reason"), names.map((name) => el("option", { value: name }, plain(name))));
  const search = el("input", { type: "search", placeholder: "words in captions or file name", "aria-label": "Search captions",
    oninput: () => { state.words = search.value.toLowerCase(); show(); } });
  const play = el("button", { type: "button", "aria-pressed": "false",
    onclick: () => play.setAttribute("aria-pressed", wall.classList.toggle("playing")) }, "Play all");
  function show() {
    let n = 0;
    for (const c of cards) {
      const fits = (state.which === "all" || c.kept === (state.which === "kept")) &&
        (!state.reason || c.reasons.includes(state.reason)) && c.words.includes(state.words);
      c.card.hidden = !fits;
      n += fits;
    }
    choices.forEach((button, i) => button.setAttribute("aria-pressed", ["all", "kept", "rejected"][i] === state.which));
    told.textContent = `${number(n)} of ${number(cards.length)} shown`;
  }
  show();
  return [el("div", { class: "filters" }, choices, names.length ? select : null, search, play, told), wall];
}

// Training ----------------------------------------------------------------------------------------------------
function curve(run) {
  const W = Math.max(280, Math.min(1110, window.innerWidth - 74)), H = 230, left = 46, base = 200, all = [...run.points, ...run.val_points];
  const steps = all.map((p) => p[0]), losses = all.map((p) => p[1]);
  const s0 = Math.min(...steps), s1 = Math.max(...steps, s0 + 1);
  let low = Math.min(...losses), high = Math.max(...losses);
  if (low > 0 && low < high / 2) low = 0;
  if (high <= low) high = low + Math.max(Math.abs(low), 1) * 0.1;
  const x = (step) => left + ((step - s0) / (s1 - s0)) * (W - left), y = (loss) => base - ((loss - low) / (high - low)) * (base - 8);
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `loss of ${run.name}` });
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((times) => times * power >= rough);
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    drawing.append(svg("line", { class: "axis", x1: left, x2: W, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  drawing.append(svg("text", { x: left, y: base + 18 }, `step ${number(s0)}`), svg("text", { x: W, y: base + 18, "text-anchor": "end" }, `step ${number(s1)}`));
  const path = (points) => points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
  if (run.points.length) drawing.append(svg("polyline", { class: "loss", points: path(run.points) }));
  if (run.val_points.length) drawing.append(svg("polyline", { class: "val", points: path(run.val_points) }));
  return drawing;
}

function samples(from) {
  const shown = from.samples.map((sample) => el("figure", { class: sample.kind === "image" ? "wide" : null },
    sample.kind === "video" ? el("video", { src: sample.uri, controls: "", loop: "", muted: "", playsinline: "", preload: "auto" })
      : el("img", { src: sample.uri, alt: `samples ${sample.name}` }),
    el("figcaption", {}, sample.name)));
  return [shown.length ? el("div", { class: "samples" }, shown) : null,
    from.samples_left_out.length ? el("p", { class: "foot" }, `not shown (too large or too many): ${from.samples_left_out.join(", ")}`) : null];
}

function training(run) {
  const last = Object.entries(run.last).filter(([name]) => name !== "step").map(([name, v]) => `${plain(name)} ${short(v)}`);
  return el("div", { class: "card run" }, el("h3", {}, run.name),
    run.points.length + run.val_points.length ? curve(run) : el("p", {}, "metrics.jsonl holds no loss."),
    el("p", { class: "foot" }, [`${number(run.steps)} steps`, "line: training loss", run.val_points.length ? "dashed: validation loss" : null, ...last].filter(Boolean).join(" · ")),
    run.not_finite ? el("p", { class: "wrong" }, `${number(run.not_finite)} losses were not finite and are not drawn.`) : null,
    samples(run));
}

// The page ----------------------------------------------------------------------------------------------------
const name = data.dataset.replace(/\/+$/, "").split("/").pop();
document.title = `${name}: Reelmill report`;
document.getElementById("name").textContent = name;
document.getElementById("about").textContent = `${data.dataset}, ${data.made_at}`;
const legend = el("ul", { class: "legend" }, [["kept or done", "good"], ["rejected", "rejected"], ["failed", "failed"], ["not yet", "waiting"]]
  .map(([word, outcome]) => el("li", { style: { "--dot": COLOUR[outcome] } }, word)));
section("funnel", "Funnel", "Everything that came in, and what became of it. The parts of each bar add up to its figure.",
  legend, el("div", { class: "stages" }, data.funnel.map(stage)));

const measured = data.histograms.filter((score) => score.n), empty = data.histograms.filter((score) => !score.n);
if (data.histograms.length) {
  const why = empty.map((score) => el("p", { class: "foot" }, `${plain(score.name)}: null for every shot${score.reasons.length ? `, ${score.reasons.join("; ")}` : ""}`));
  section("scores", "Scores", "Shots by score: kept at the bottom, rejected (for any reason) on top. A dashed line is the limit that rejected shots; a score without one rejected none.",
    el("div", { class: "grid" }, measured.map(scoreCard), mosaic("picture size", data.aspect),
      data.camera.some((row) => row.name !== "not measured") ? mosaic("camera", data.camera) : null),
    why.length ? el("details", {}, el("summary", {}, `${number(why.length)} scores were not measured`), why) : null);
}
if (data.gallery.length) {
  const n = (keep) => data.gallery.filter((clip) => (clip.keep !== false) === keep).length;
  const shots = data.funnel.find((row) => row.name === "shots found");
  section("clips", "Clips", `A sample: ${number(n(true))} kept and ${number(n(false))} rejected of ${number(shots ? shots.total : data.gallery.length)} shots, rejected ones from every reason in turn. Point at a picture, or tap it, to play it.`, ...gallery());
}
if (data.captions.length) {
  const head = ["kind", "captioner", "model", "captions", "without text", "distinct texts", "words, mean", "CLIP score, mean", "remarks"];
  const right = new Set([3, 4, 5, 6, 7]);
  section("captions", "Captions", null, el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { class: right.has(i) ? "num" : null, scope: "col" }, text)))),
    el("tbody", {}, data.captions.map((row) => el("tr", {},
      [row.kind, row.captioner, row.model, number(row.n), number(row.n - row.with_text), number(row.distinct_texts),
        row.words === null ? "" : row.words.toFixed(1), row.clip_score === null ? "" : row.clip_score.toFixed(3), (row.flags || []).join("; ")]
        .map((text, i) => el("td", { class: right.has(i) ? "num" : null }, text ?? ""))))))));
}
if (data.runs.length) section("training", "Training", null, data.runs.map(training));
if (data.samples.length + data.samples_left_out.length) section("samples", "Samples", "Videos that the trained model made.", samples(data));
section("errors", "Errors", data.n_errors ? `${number(data.n_errors)} in all${data.n_errors > data.errors.length ? `, the first ${number(data.errors.length)} shown` : ""}.` : "None.",
  data.errors.map((row) => el("details", { class: "error" },
    el("summary", {}, el("b", {}, `${row.what} ${row.status}`), ` ${row.who}: ${row.error.split("\n")[0].slice(0, 160)}`), el("pre", {}, row.error))));
document.getElementById("foot").textContent = "Made by reelmill report. The tables beside this page hold every row: reelmill query, DuckDB, Polars and pandas read them.";
