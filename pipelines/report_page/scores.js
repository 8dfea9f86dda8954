// Scores ------------------------------------------------------------------------------------------------------
// histogram() and mosaic() draw counts that were made beforehand; scoreCard() adds the sliders.
const CHART = { width: 330, height: 104, base: 78 };

const exact = (x) => x.toLocaleString("en", { maximumFractionDigits: 9 });

function scaleOf(score) {
  const low = score.edges[0], high = score.edges[score.edges.length - 1];
  return (value) => (Math.min(Math.max(value - low, 0), high - low) / (high - low)) * CHART.width;
}

// A bin's parts from the bottom up, as [class, count, word]. Counts of anything but shots have one part.
const partsOf = (score, i) => [["k", score.kept[i], score.unit || "kept"], ["r", score.rejected[i], "rejected"], ["w", score.waiting[i], "not decided yet"]];
const inBin = (score, i) => score.kept[i] + score.rejected[i] + score.waiting[i];
const tallest = (score) => Math.max(...score.kept.map((_, i) => inBin(score, i)));

const counted = (score, parts) => parts.filter(([kind, n]) => n || (score.unit ? kind === "k" : kind !== "w")).map(([, n, word]) => `${number(n)} ${word}`).join(", ");

// A bar is as high as its bin holds shots, also where a limit makes the bin narrower.
function bars(score, x) {
  const top = Math.max(1, tallest(score));
  return score.kept.map((_, i) => {
    const left = x(score.edges[i]), width = x(score.edges[i + 1]) - left, gap = Math.min(0.5, width / 4), parts = partsOf(score, i);
    let y = CHART.base;
    return svg("g", {}, svg("title", {}, `${short(score.edges[i])} to ${short(score.edges[i + 1])}: ${counted(score, parts)}`),
      svg("rect", { x: left, y: 0, width, height: CHART.base, fill: "transparent" }),
      parts.filter(([, n]) => n).map(([kind, n]) => {
        const height = Math.max(1.2, (n / top) * CHART.base);
        y -= height;
        return svg("rect", { class: kind, x: left + gap, y, width: width - 2 * gap, height });
      }));
  });
}

function histogram(score) {
  const { width: W, height: H, base } = CHART, x = scaleOf(score), limits = score.limits || [];
  const all = score.kept.map((_, i) => partsOf(score, i)), sum = (k) => all.reduce((n, parts) => n + parts[k][1], 0);
  const told = counted(score, all[0].map(([kind, , word], k) => [kind, sum(k), word])), unit = score.unit || "shots";
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
    svg("text", { class: "tallest", x: W / 2, y: base + 15, "text-anchor": "middle" }, `tallest: ${number(tallest(score))} ${tallest(score) === 1 ? unit.slice(0, -1) : unit}`),
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
  const all = (row) => row.kept + row.rejected + row.waiting;
  const most = Math.max(1, ...rows.map(all)), shaped = rows.some((row) => row.w);
  return el("div", { class: "card" }, el("h3", {}, title), hint ? el("p", { class: "hint" }, hint) : null,
    el("div", { class: shaped ? "mosaic shaped" : "mosaic" }, rows.slice(0, 10).map((row) => {
      const parts = [{ name: "kept", n: row.kept, outcome: "good" }, { name: "rejected", n: row.rejected, outcome: "rejected" },
        { name: "not decided yet", n: row.waiting, outcome: "waiting" }];
      const drawn = bar(parts, all(row)), decided = row.kept + row.rejected;
      drawn.style.width = `${(100 * all(row)) / most}%`;
      return el("div", {}, shaped ? shape(row) : null, el("span", { class: "name" }, plain(row.name)), drawn,
        el("span", { class: "told" }, [decided ? `${number(row.kept)} of ${number(decided)} kept` : null,
          row.waiting ? `${number(row.waiting)} not decided` : null].filter(Boolean).join(", ")));
    })), rows.length > 10 ? el("p", { class: "foot" }, `and ${number(rows.length - 10)} more`) : null);
}

function shape(row) {
  if (!row.w) return el("i", { class: "shape" });
  const scale = 20 / Math.max(row.w, row.h);
  return el("i", { class: "shape", "aria-hidden": "true" },
    el("b", { style: { width: `${row.w * scale}px`, height: `${row.h * scale}px` } }));
}

// A score's card: its histogram, a slider per limit that tells how many clips another limit would keep, and after
// the card, across all columns, the command for it ----------------------------------------------------------------
// A slider stands only on `stops`, where the counts are known. A score without a limit gets one to try.

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
    unread: passing(score.unread, bounds, score.if_null), of: score.all.n + score.all.nulls };
}

// What the figure cannot know: copies depend on which shots pass. Where nothing hangs on them it is exact.
function copiesRemark(score, bounds, more) {
  if (!score.seeks_copies) return ["", ""];
  const moved = (bound, way) => bound.set && (bound.rule === null ? way < 0 : way * (score.stops[bound.at] - bound.rule) * (bound.op === "<" ? -1 : 1) > 0);
  const looser = bounds.some((bound) => moved(bound, 1)), tighter = bounds.some((bound) => moved(bound, -1));
  if (looser && !tighter) return more ? ["up to ", "Copies among them would still be rejected."] : ["", ""];
  return score.n_copies || looser ? ["about ", "A copy may be kept in place of a shot that goes."] : ["", ""];
}

// Text is not read of shots that another rule rejects, and thresholds alone read nothing again.
const unreadRemark = (score, n) => `${number(n)} of them have no ${score.unread_scores.map(plain).join(", ")} yet: only a new dataset would measure it.`;

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
  const step = (by, sign, word) => el("button", { type: "button", "aria-label": `${plain(score.name)} ${label}: ${word}`, onclick: () => move(bound.at + by) }, sign);
  return el("div", { class: "bound" }, el("div", { class: "bound-told" }, el("span", {}, bound.rule === null ? `try ${label}` : label), told,
    step(-1, "−", "one stop down"), step(1, "+", "one stop up")), input);
}

function tryLimits(score, drawing) {
  const bounds = boundsOf(score), result = el("p", { class: "result", role: "status" });
  const code = el("code", {}), back = el("button", { type: "button", onclick: () => { bounds.forEach((bound) => bound.reset()); show(); } }, "Back");
  const change = el("div", { class: "command", role: "group", "aria-label": `command for ${plain(score.name)}` }, code, back), before = wouldKeep(score, bounds).kept;
  for (const bound of bounds) bound.others = () => bounds.filter((other) => other !== bound);
  function show() {
    const { kept, pass, unread, of } = wouldKeep(score, bounds), more = kept - before;
    const moved = bounds.some((bound) => (bound.set ? score.stops[bound.at] : null) !== bound.rule);
    const [prefix, remark] = moved ? copiesRemark(score, bounds, more) : ["", ""];
    if (score.undecided === of) {
      result.replaceChildren(el("b", {}, `${number(pass)} of ${number(of)}`), " pass this filter", el("span", {}, "nothing is decided yet"));
    } else {
      result.replaceChildren(el("b", {}, `${prefix}${number(kept)} of ${number(of)}`), moved ? " would be kept " : " kept ",
        moved ? el("b", { class: more < 0 ? "less" : "more" }, `${more > 0 ? "+" : more < 0 ? "−" : "±"}${number(Math.abs(more))}`) : "",
        el("span", {}, `${number(pass)} pass this filter${score.undecided ? `, ${number(score.undecided)} not decided yet` : ""}`),
        remark ? el("span", { class: "but" }, remark) : "", moved && unread ? el("span", { class: "but" }, unreadRemark(score, unread)) : "");
    }
    change.hidden = !moved;
    const flags = bounds.filter((bound) => bound.set).map((bound) => `--rules.${score.name}.${bound.op === "<" ? "min" : "max"}=${score.stops[bound.at]}`);
    code.textContent = score.command ? [score.command, ...flags].join(" \\\n  ") : score.no_command || "";
  }
  const lines = bounds.map(() => svg("line", { class: "moved", y1: -2, y2: CHART.base }));
  drawing.append(...lines);
  const sliders = bounds.map((bound, i) => slider(score, bound, lines[i], show));
  show();
  return [el("div", { class: "try" }, sliders, result), change];
}

function scoreCard(score) {
  const drawing = histogram(score), [limits, change] = score.stops ? tryLimits(score, drawing) : [el("div", {}), null];
  const foot = [`median ${short(score.median)}`, `max ${short(score.max)}`, `${number(score.n)} measured`];
  if (score.nulls) foot.push(`${number(score.nulls)} null${score.if_null === "reject" ? " (rejected)" : ""}`);
  const both = document.createDocumentFragment(), card = el("div", { class: "card score", id: `score-${score.name}` }, el("h3", {}, plain(score.name)), el("p", { class: "hint" }, score.about),
    drawing, limits, el("div", {}, el("p", { class: "foot" }, foot.join(" · ")),
      score.reasons.length ? el("details", {}, el("summary", {}, `${number(score.nulls)} null: why`), el("p", { class: "foot" }, `null because: ${score.reasons.join("; ")}`)) : null));
  both.append(card, ...(change ? [change] : []));
  return both;
}
