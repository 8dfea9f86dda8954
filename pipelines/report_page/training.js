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
  for (const [points, mark] of [[run.points, "loss"], [run.val_points, "val"]]) {
    if (points.length === 1) drawing.append(svg("circle", { class: mark, cx: x(points[0][0]), cy: y(points[0][1]), r: 4 }));  // no line yet
  }
  return drawing;
}

const some = (names, n) => names.join(", ") + (n > names.length ? ` and ${number(n - names.length)} more` : "");

const LONGEST_SHOWN = 160;  // characters below a sample; more are unfolded
// What was asked for; of the contact sheet, what it is.
const promptOf = (sample) => sample.text || (sample.name.split("/").pop() === "strip.png" ? "contact sheet: frames of every sample" : "");

function captionUnder(sample) {
  const told = [sample.name, promptOf(sample)].filter(Boolean).join(" · ");
  if (told.length <= LONGEST_SHOWN) return el("figcaption", {}, told);
  return el("figcaption", {}, el("details", {}, el("summary", {}, `${told.slice(0, LONGEST_SHOWN)}…`), sample.text));
}

function samples(from) {
  const shown = from.samples.map((sample) => el("figure", { class: sample.kind === "image" ? "wide" : null },
    sample.kind === "video" ? el("video", { src: sample.uri, controls: "", loop: "", muted: "", playsinline: "", preload: "auto" })
      : el("img", { src: sample.uri, alt: promptOf(sample) || `sample ${sample.name}` }),
    captionUnder(sample)));
  return [shown.length ? el("div", { class: "samples" }, shown) : null,
    from.samples_left_out.length ? el("p", { class: "foot" }, `not shown (too large or too many): ${some(from.samples_left_out, from.n_left_out)}`) : null];
}

function training(run) {
  const last = Object.entries(run.last).filter(([name]) => name !== "step").map(([name, v]) => `${plain(name)} ${short(v)}`);
  return el("div", { class: "card run" }, el("h3", {}, run.name),
    run.points.length + run.val_points.length ? curve(run) : el("p", {}, "metrics.jsonl holds no loss."),
    el("p", { class: "foot" }, [`${number(run.steps)} steps`, "line: training loss", run.val_points.length ? `${run.val_points.length === 1 ? "circle" : "dashed"}: validation loss` : null, ...last].filter(Boolean).join(" · ")),
    run.not_finite ? el("p", { class: "wrong" }, `${number(run.not_finite)} losses were not finite and are not drawn.`) : null,
    samples(run));
}
