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
