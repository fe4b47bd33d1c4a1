// ---- runs and what made them

function runTable(runs, picked) {
  const shifts = unique(runs.flatMap((run) => Object.keys(run.shift)));
  const texts = ["arm", "seed", board.metric, "val", ...shifts.map((name) => name.replaceAll("_", " ")), "seconds", "device", "file"];
  const first = [...runs.filter((run) => run.arm === picked), ...runs.filter((run) => run.arm !== picked)];
  const lines = first.map((run) => el("tr", { class: run.arm === picked ? "picked" : null },
    rowHead(armText(run.arm)), right(String(run.seed)), right(fixed(run.test, 2)), right(fixed(run.val)),
    shifts.map((name) => right(fixed(run.shift[name]))), right(fixed(run.seconds)), td(run.device),
    td(fileLink(run, run.key.slice(0, 8)))));
  return scroller("Runs", tableHead(texts, (i) => i > 0 && i < 5 + shifts.length), lines, { id: "runs" });
}

function provenance(runs) {
  const made = unique(runs.map((run) => run.made)).map((i) => [DATA.made[i], runs.filter((run) => run.made === i)]);
  return el("ul", { class: "list small", id: "provenance" }, made.map(([told, own]) => provenanceItem(told, own)));
}

function provenanceItem([commit, dirty, code, host, versions], runs) {
  const dates = runs.map((run) => run.finished.slice(0, 10)).sort();
  const when = dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`;
  const clean = dirty === null ? "not known whether edited" : dirty ? "edited since" : "unedited";
  return el("li", {}, `${plural(runs.length, "run")}, ${when}. Commit `, mono(commit ? commit.slice(0, 12) : "none"),
    ` (${clean}), code `, mono(code.slice(0, 12)), `. ${host}. ${versions}.`);
}
