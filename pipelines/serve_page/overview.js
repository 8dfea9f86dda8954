// The overview: the figures and drawings of `reelmill report`, over the tables as they are now.
import { NONE, ask, filter } from "./address.js";

const LEGEND = [["kept or done", "good"], ["rejected", "rejected"], ["failed", "failed"], ["not yet", "waiting"]];
let drawn = null; // number of the view that is drawn

export async function overview(number_of_view) {
  if (drawn === number_of_view) return;
  const main = document.getElementById("main"), nav = document.getElementById("nav");
  if (drawn === null) main.replaceChildren(el("p", { class: "hint" }, "Counting…"));
  const data = await ask("/api/overview");
  drawn = number_of_view;
  main.replaceChildren();
  nav.replaceChildren();
  draw(data);
}

function draw(data) {
  section("funnel", "Funnel", "Everything that came in, and what became of it. The parts of each bar add up to its figure.",
    el("ul", { class: "legend" }, LEGEND.map(([word, outcome]) => el("li", { style: { "--dot": COLOUR[outcome] } }, word))),
    el("div", { class: "stages" }, data.funnel.map(stage)));
  const measured = data.histograms.filter((score) => score.n), empty = data.histograms.filter((score) => !score.n);
  if (data.histograms.length) {
    section("scores", "Scores", "Clips by score: kept at the bottom, rejected (for any reason) on top. A dashed line is the limit in force. Move a slider to see how many clips another limit would keep; the command below it would do so.",
      el("div", { class: "grid" }, measured.map(withLinks)),
      empty.length ? el("details", {}, el("summary", {}, `${number(empty.length)} scores were not measured`),
        empty.map((score) => el("p", { class: "foot" }, `${plain(score.name)}: null for every clip${score.reasons.length ? `, ${score.reasons.join("; ")}` : ""}`))) : null);
    section("shapes", "Camera and shape", null, el("div", { class: "grid" },
      data.camera.some((row) => row.name !== "not measured") ? mosaic("camera motion", data.camera) : null,
      mosaic("aspect", data.aspect), mosaic("picture size", data.sizes)));
  }
  if (data.captions.length) section("captions", "Captions", null, ...captionParts(data.captions, data.caption_facts));
  if (data.runs.length) section("training", "Training", "As it was when this page was opened.", data.runs.map(training));
  section("errors", "Errors", ...errorParts(data));
}

// A card of the report, with ways from a limit to the clips on either side of it.
function withLinks(score) {
  const card = scoreCard(score), least = score.limits.find((limit) => limit.op === "<"), most = score.limits.find((limit) => limit.op === ">");
  const button = (words, changes) => el("button", { type: "button", class: "small", onclick: () => filter({ ...NONE, ...changes }) }, words);
  const sorted = { score: score.name, sort: score.name };
  // Inside what is there already: the cards of a row share its lines.
  card.querySelector(".foot").append(el("span", { class: "ways" },
    least ? button("just below the limit", { ...sorted, most: String(least.bound), order: "desc" }) : null,
    least ? button("just above", { ...sorted, least: String(least.bound) }) : null,
    most && !least ? button("just above the limit", { ...sorted, least: String(most.bound) }) : null,
    most && !least ? button("just below", { ...sorted, most: String(most.bound), order: "desc" }) : null,
    button("lowest", sorted), button("highest", { ...sorted, order: "desc" })));
  return card;
}
