// Errors: [hint, ...parts of the section], from `errors` (kinds, each with its count) and `n_errors` in all ---------
function errorParts({ errors, n_errors: n }) {
  const told = errors.reduce((all, row) => all + row.n, 0);
  const hint = [`${number(n)} in all${n > told ? `, ${number(told)} of them shown to keep this page small` : ""}.`,
    errors.some((row) => row.n > 1) ? "Errors that differ in names and long numbers alone are told once, with the text of the first." : null];
  return [n ? hint.filter(Boolean).join(" ") : "None.", ...errors.map((row) => el("details", { class: "error" },
    el("summary", {}, el("b", {}, `${row.what} ${row.status}${row.n > 1 ? `, ${number(row.n)} times` : ""}`), ` ${row.who}: ${row.error.split("\n")[0].slice(0, 160)}`),
    el("pre", {}, row.error)))];
}
