// The page ----------------------------------------------------------------------------------------------------
const data = JSON.parse(document.getElementById("data").textContent);
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
  section("scores", "Scores", ["Shots by score: kept at the bottom, rejected (for any reason) on top. A dashed line is the limit in force. " +
    "Move a slider to see how many shots another limit would keep with all other rules as they are, before copies are looked for; ",
    el("code", {}, data.what_if.split(" ").map((word, i) => [i ? " " : "", el("span", {}, word)])), " counts them too and writes nothing."],
    el("div", { class: "grid" }, measured.map(scoreCard)),
    why.length ? el("details", {}, el("summary", {}, `${number(why.length)} scores were not measured`), why) : null);
  section("shapes", "Camera and shape", null, el("div", { class: "grid" },
    data.camera.some((row) => row.name !== "not measured") ? mosaic("camera motion", data.camera) : null,
    mosaic("aspect", data.aspect, "The nearest usual shape, inside black borders."), mosaic("picture size", data.sizes)));
}
if (data.gallery.length) {
  const sampled = [["kept", true], ["rejected", false], ["not decided", null]].map(([word, keep]) => [word, data.gallery.filter((clip) => clip.keep === keep).length]);
  const told = sampled.filter(([, n]) => n).map(([word, n]) => `${number(n)} ${word}`).join(" and ");
  const shots = data.funnel.find((row) => row.name === "shots found"), { pictures, cards } = data.left_out;
  const room = [pictures ? `${number(pictures)} pictures` : null, cards ? `${number(cards)} clips` : null].filter(Boolean).join(" and ");
  const turns = [sampled.filter(([, n]) => n).length > 1 ? ", in turn" : "", sampled[1][1] ? ", rejected ones from every reason" : ""].join("");
  section("clips", "Clips", `A random sample: ${told} of ${number(shots ? shots.total : data.gallery.length)} shots${turns}. ` +
    (room ? `${room} were left out, so that the page stays below 15 MB. ` : "") + "Point at a picture, tap it or press Enter to play it; arrow keys go on to the next.", ...gallery(data.gallery));
}
if (data.copies.pairs.length) section("copies", "Copies", copiesHint(data.copies), copiesOf(data.copies));
if (data.captions.length) section("captions", "Captions", null, ...captionParts(data.captions, data.caption_facts));
if (data.runs.length) {
  section("training", "Training", data.n_runs > data.runs.length ? `The first ${number(data.runs.length)} of ${number(data.n_runs)} runs.` : null, data.runs.map(training));
}
if (data.samples.length + data.samples_left_out.length) section("samples", "Samples", "Videos that the trained model made.", samples(data));
const errorTables = [...new Set(data.errors.map((row) => row.table))];
section("errors", "Errors", ...errorParts(data),
  data.n_errors > data.errors.length ? errorTables.map((table, i) => el("p", { class: "foot" }, i ? "" : "All of them: ",
    el("code", {}, `${data.query} "SELECT ${table === "sources" ? "uri" : "clip_id"}, error FROM ${table} WHERE error IS NOT NULL"`))) : null);
document.getElementById("foot").append("Made by reelmill report. The tables beside this page hold every row: reelmill query, DuckDB, Polars and pandas read them. ", el("a", { href: "#top" }, "Back to the top"));
