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
    el("li", { style: { "--dot": COLOUR[part.outcome], "--fade": part.fade } },
      `${number(part.n)} ${part.name}${part.by_hand ? ` (${number(part.by_hand)} by hand)` : ""}`));
  if (sum !== row.total) told.push(el("li", { class: "wrong" }, `does not add up: ${number(row.total - sum)} missing`));
  return el("div", { class: "stage" },
    el("div", { class: "head" }, el("div", { class: "total" }, number(row.total)), el("div", { class: "unit" }, row.name)),
    el("div", {}, drawn, el("ul", { class: "sum" }, told)));
}
