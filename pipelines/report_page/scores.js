// Scores ------------------------------------------------------------------------------------------------------
// histogram() and mosaic() draw counts that were made beforehand; scoreCard() adds the sliders.
const CHART = { width: 330, height: 104, base: 78 };

const exact = (x) => x.toLocaleString("en", { maximumFractionDigits: 9 });

function scaleOf(score) {
  const low = score.edges[0], high = score.edges[score.edges.length - 1];
  return (value) => (Math.min(Math.max(value - low, 0), high - low) / (high - low)) * CHART.width;
}

// Bars by area: a bin that a limit made narrower is not drawn lower for it.
function heights(score) {
  const span = score.edges[score.edges.length - 1] - score.edges[0], even = span / score.kept.length;
  const share = score.kept.map((_, i) => even / Math.max(score.edges[i + 1] - score.edges[i], even / 4));
  const top = Math.max(...score.kept.map((kept, i) => (kept + score.rejected[i]) * share[i]), 1e-9);
  return (count, i) => (count ? Math.max(1.2, (count * share[i] / top) * CHART.base) : 0);
}

function bars(score, x) {
  const tall = heights(score), unit = score.unit;
  return score.kept.map((kept, i) => {
    const left = x(score.edges[i]), width = x(score.edges[i + 1]) - left, gap = Math.min(0.5, width / 4);
    const good = tall(kept, i), bad = tall(score.rejected[i], i);
    const told = unit ? `${number(kept)} ${unit}` : `${number(kept)} kept, ${number(score.rejected[i])} rejected`;
    return svg("g", {}, svg("title", {}, `${short(score.edges[i])} to ${short(score.edges[i + 1])}: ${told}`),
      svg("rect", { x: left, y: 0, width, height: CHART.base, fill: "transparent" }),
      good ? svg("rect", { class: "k", x: left + gap, y: CHART.base - good, width: width - 2 * gap, height: good }) : null,
      bad ? svg("rect", { class: "r", x: left + gap, y: CHART.base - good - bad, width: width - 2 * gap, height: bad }) : null);
  });
}

function histogram(score) {
  const { width: W, height: H, base } = CHART, x = scaleOf(score), limits = score.limits || [];
  const sum = (counts) => number(counts.reduce((all, n) => all + n, 0));
  const told = score.unit ? `${sum(score.kept)} ${score.unit}` : `${sum(score.kept)} kept, ${sum(score.rejected)} rejected`;
  const drawing = svg("svg", { viewBox: `0 -16 ${W} ${H + 6}`, role: "img",
    "aria-label": [`histogram of ${plain(score.name)}: ${told}`, `${short(score.edges[0])} to ${short(score.max)}`,
      ...limits.map((limit) => `rejected ${limit.op} ${exact(limit.bound)}`)].join(", ") });
  for (const limit of limits) {
    const at = x(limit.bound);
    drawing.append(svg("rect", { class: "cutoff", x: limit.op === "<" ? 0 : at, y: 0, width: limit.op === "<" ? at : W - at, height: base }));
  }
  drawing.append(...bars(score, x));
  drawing.append(svg("line", { class: "axis", x1: 0, x2: W, y1: base, y2: base }),
    svg("text", { x: 0, y: base + 15 }, short(score.edges[0])),
    svg("text", { x: W, y: base + 15, "text-anchor": "end" }, short(score.edges[score.edges.length - 1]) + (score.over ? " and above" : "")));
  for (const limit of limits) {
    const at = x(limit.bound), anchor = at < 60 ? "start" : at > W - 60 ? "end" : "middle";
    drawing.append(svg("line", { class: "limit", x1: at, x2: at, y1: -2, y2: base }),
      svg("text", { class: "limit-text", x: at, y: -6, "text-anchor": anchor }, `rejected ${limit.op} ${exact(limit.bound)}`));
  }
  return drawing;
}

// A row may have `w` and `h`: its shape is then drawn before its name.
function mosaic(title, rows, hint) {
  const most = Math.max(1, ...rows.map((row) => row.kept + row.rejected)), shaped = rows.some((row) => row.w);
  return el("div", { class: "card" }, el("h3", {}, title), hint ? el("p", { class: "hint" }, hint) : null,
    el("div", { class: shaped ? "mosaic shaped" : "mosaic" }, rows.slice(0, 10).map((row) => {
      const parts = [{ name: "kept", n: row.kept, outcome: "good" }, { name: "rejected", n: row.rejected, outcome: "rejected" }];
      const drawn = bar(parts, row.kept + row.rejected);
      drawn.style.width = `${(100 * (row.kept + row.rejected)) / most}%`;
      return el("div", {}, shaped ? shape(row) : null, el("span", { class: "name" }, plain(row.name)), drawn,
        el("span", { class: "told" }, `${number(row.kept)} of ${number(row.kept + row.rejected)} kept`));
    })), rows.length > 10 ? el("p", { class: "foot" }, `and ${number(rows.length - 10)} more`) : null);
}

function shape(row) {
  if (!row.w) return el("i", { class: "shape" });
  const scale = 20 / Math.max(row.w, row.h);
  return el("i", { class: "shape", "aria-hidden": "true" },
    el("b", { style: { width: `${row.w * scale}px`, height: `${row.h * scale}px` } }));
}

// A score's card: its histogram, and a slider per limit that tells how many clips another limit would keep -------
// A slider stands only on `stops`, where the counts are exact. A score without a limit gets one to try.

function boundsOf(score) {
  const given = (score.limits || []).map((limit) => ({ op: limit.op, set: true, at: score.stops.indexOf(limit.bound), rule: limit.bound }));
  const one = (op) => given.find((bound) => bound.op === op);
  if (given.length) return [one("<"), one(">")].filter(Boolean);
  return [{ op: score.tries, set: false, at: score.tries === "<" ? 0 : score.stops.length - 1, rule: null }];
}

// Clips of `counts` that pass where the bounds stand; a null passes unless a bound is set and nulls are rejected.
function passing(counts, bounds, ifNull) {
  let n = counts.n;
  for (const bound of bounds) if (bound.set) n -= (bound.op === "<" ? counts.below : counts.above)[bound.at];
  return n + (ifNull === "reject" && bounds.some((bound) => bound.set) ? 0 : counts.nulls);
}

function wouldKeep(score, bounds) {
  return { kept: score.by_hand + passing(score.free, bounds, score.if_null), pass: passing(score.all, bounds, score.if_null),
    of: score.all.n + score.all.nulls };
}

function slider(score, bound, line, changed) {
  const stops = score.stops, last = stops.length - 1, first = bound.at, lower = bound.op === "<";
  const told = el("output", {}), label = lower ? "at least" : "at most";
  const input = el("input", { type: "range", min: stops[0], max: stops[last], step: "any",
    "aria-label": `${plain(score.name)} ${label}` });
  function move(at) {
    const others = bound.others().map((other) => other.at);
    bound.at = Math.max(lower ? 0 : Math.max(0, ...others), Math.min(lower ? Math.min(last, ...others) : last, at));
    bound.set = bound.rule !== null || bound.at !== first;
    show();
    changed();
  }
  function show() {
    const value = stops[bound.at], at = scaleOf(score)(value);
    input.value = value;
    told.textContent = bound.set ? exact(value) : "no limit";
    input.setAttribute("aria-valuetext", told.textContent);
    line.setAttribute("x1", at);
    line.setAttribute("x2", at);
    line.setAttribute("visibility", bound.at === first ? "hidden" : "visible");
  }
  const keys = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -stops.length, End: stops.length };
  input.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(bound.at + keys[event.key]);
  });
  input.addEventListener("input", () => {
    const wanted = Number(input.value);
    move(stops.reduce((best, stop, i) => (Math.abs(stop - wanted) < Math.abs(stops[best] - wanted) ? i : best), 0));
  });
  bound.reset = () => { bound.at = first; bound.set = bound.rule !== null; show(); };
  show();
  return el("div", { class: "bound" }, el("div", { class: "bound-told" }, el("span", {}, bound.rule === null ? `try ${label}` : label), told), input);
}

function tryLimits(score, drawing) {
  const bounds = boundsOf(score), result = el("p", { class: "result", role: "status" });
  const code = el("code", {}), back = el("button", { type: "button", onclick: () => { bounds.forEach((bound) => bound.reset()); show(); } }, "Back");
  const change = el("div", { class: "command" }, code, back), before = wouldKeep(score, bounds).kept;
  for (const bound of bounds) bound.others = () => bounds.filter((other) => other !== bound);
  function show() {
    const { kept, pass, of } = wouldKeep(score, bounds), more = kept - before;
    const moved = bounds.some((bound) => (bound.set ? score.stops[bound.at] : null) !== bound.rule);
    result.replaceChildren(el("b", {}, `${number(kept)} of ${number(of)}`), moved ? " would be kept " : " kept ",
      moved ? el("b", { class: more < 0 ? "less" : "more" }, `${more > 0 ? "+" : more < 0 ? "−" : "±"}${number(Math.abs(more))}`) : "",
      el("span", {}, `${number(pass)} pass this filter`));
    change.hidden = !moved;
    const flags = bounds.filter((bound) => bound.set).map((bound) => `--rules.${score.name}.${bound.op === "<" ? "min" : "max"}=${score.stops[bound.at]}`);
    code.textContent = score.command ? [score.command, ...flags].join(" \\\n  ") : score.no_command || "";
  }
  const lines = bounds.map(() => svg("line", { class: "moved", y1: -2, y2: CHART.base }));
  drawing.append(...lines);
  const sliders = bounds.map((bound, i) => slider(score, bound, lines[i], show));
  show();
  return el("div", { class: "try" }, sliders, result, change);
}

function scoreCard(score) {
  const drawing = histogram(score);
  const foot = [`median ${short(score.median)}`, `max ${short(score.max)}`, `${number(score.n)} measured`];
  if (score.nulls) foot.push(`${number(score.nulls)} null${score.if_null === "reject" ? " (rejected)" : ""}`);
  return el("div", { class: "card score", id: `score-${score.name}` }, el("h3", {}, plain(score.name)), el("p", { class: "hint" }, score.about),
    drawing, score.stops ? tryLimits(score, drawing) : el("div", {}), el("div", {}, el("p", { class: "foot" }, foot.join(" · ")),
      score.reasons.length ? el("details", {}, el("summary", {}, `${number(score.nulls)} null: why`), el("p", { class: "foot" }, `null because: ${score.reasons.join("; ")}`)) : null));
}
