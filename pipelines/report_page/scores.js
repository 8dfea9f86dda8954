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
