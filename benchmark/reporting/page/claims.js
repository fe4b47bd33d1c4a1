// ---- what is claimed, beside what was measured

const CLAIMS = "claims";
const FOLDED = 40;
const FEW_FIGURES = 3;
const wasMeasured = (finding) => finding.claims.some((claim) => claim.measured.length);
const sectionOf = (finding) => `finding-${finding.study}`;
const findingOf = (each) => DATA.findings.find(({ protocol, study }) => protocol === each.protocol && study === each.study);
const experiments = (claim) => `experiment${claim.rows.length === 1 ? "" : "s"} ${claim.rows.join(", ")}`;

// A leaderboard without cells, so that address and tabs can hold it.
function claimsTab({ protocol, description }) {
  const own = DATA.findings.filter((finding) => finding.protocol === protocol);
  return own.length ? [{ protocol, study: CLAIMS, description, findings: own, cells: [], rows: [], arms: new Map() }] : [];
}

function withClaims(boards) {
  const first = (each) => boards.find(({ protocol }) => protocol === each.protocol) === each;
  return boards.flatMap((each) => (first(each) ? [each, ...claimsTab(each)] : [each]));
}

// A link, so that the browser's way back leads back. One to where the address is already has to go there by itself.
function linkTo(protocol, study, section, text, props = {}) {
  const href = `#${new URLSearchParams({ protocol, study, ...(section ? { section } : {}) })}`;
  return el("a", { href, onclick: () => section && location.hash === href && reveal(), ...props }, text);
}

function reveal() {
  const heading = byId(`finding-${state.section}-title`);
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}

function claimsHeading() {
  const claims = board.findings.flatMap((finding) => finding.claims);
  const fact = (value, text) => el("li", {}, el("b", {}, String(value)), ` ${text}`);
  return el("div", {},
    el("h2", {}, "Claims and measurements"),
    el("p", {}, `Claims of the papers, and questions of this suite's own, beside what protocol ${board.protocol} measured.`
      + ` “Contradicted” means at this protocol's scale.`),
    el("ul", { class: "facts" },
      fact(claims.length, claims.length === 1 ? "claim" : "claims"),
      fact(claims.filter((claim) => claim.measured.length).length, "measured here"),
      Object.keys(DATA.marks).map((outcome) => [outcome, claims.filter((claim) => claim.outcome === outcome).length])
        .filter(([, count]) => count).map(([outcome, count]) => fact(count, outcome)),
      fact(claims.filter((claim) => claim.measured.length && !claim.outcome).length, "numbers alone")));
}

function claimsBlock() {
  const texts = ["experiment", "claim", "by", "study", "measured"].map((text) => el("th", { scope: "col" }, text));
  const lines = board.findings.flatMap((finding) => finding.claims.map((claim) => claimRow(finding, claim)));
  const table = scroller("Claims", el("thead", {}, el("tr", {}, texts)), lines, { class: "claims", id: "claims", role: "table" });
  return block("claims-block", "All claims",
    "By study, in the order of the papers' experiments, our own last. The name of a study leads to its measurements.", table);
}

function claimRow(finding, claim) {
  const cell = (content, props = {}) => el("td", { role: "cell", ...props }, content);
  const numbers = cell(claim.rows.join(", ") || "–", { class: "number", "data-label": "experiment" });
  const link = linkTo(finding.protocol, CLAIMS, finding.study, finding.study, { class: "mono" });
  return el("tr", { role: "row", "data-study": finding.study }, numbers, cell(claim.description),
    cell(claim.who, { class: "whose soft" }), cell(link), cell([outcomeBadge(claim.outcome, claim.word), claim.summary.map((text) => el("div", { class: "small soft" }, text))]));
}

function claimList(finding, figures) {
  return el("ol", { class: "claim-list" }, finding.claims.map((claim) => el("li", {},
    el("p", {}, claim.description),
    el("div", { class: "whose small soft" }, outcomeBadge(claim.outcome, claim.word),
      claim.rows.length ? `${claim.who}, ${experiments(claim)}` : claim.who),
    figures ? publishedList(claim) : null)));
}

function publishedList({ published }) {
  if (!published.length) return null;
  const list = el("ul", { class: "small soft" }, published.map((text) => el("li", {}, cited(text))));
  const heading = `As published: ${plural(published.length, "figure")}`;
  if (published.length > FEW_FIGURES) return el("details", { class: "small" }, el("summary", {}, heading), list);
  return el("div", {}, el("p", { class: "small soft" }, heading), list);
}

function limits({ protocol, limits }) {
  if (!limits) return null;
  return el("div", { class: "callout limits small" }, el("b", {}, `What ${protocol} can and cannot say:`), el("p", {}, limits));
}

// On the leaderboard of a study.
function claimedBlock() {
  const finding = findingOf(board);
  if (!finding) return null;
  const link = linkTo(board.protocol, CLAIMS, board.study, "All measured differences", { class: "button" });
  return block("claimed-block", "Claims of this study", finding.asks, claimList(finding, false), limits(finding),
    el("div", { class: "more" }, link));
}

function findingBlock(finding) {
  const { protocol, study } = finding;
  const own = BOARDS.find((each) => each.protocol === protocol && each.study === study);
  const fact = (value, text) => el("li", {}, el("b", {}, String(value)), ` ${text}`);
  const facts = el("ul", { class: "facts" },
    el("li", {}, "study ", own ? linkTo(protocol, study, "", study, { class: "mono" }) : mono(study)),
    fact(finding.runs, finding.runs === 1 ? "run" : "runs"),
    fact(finding.comparisons.join(" or "), "comparisons that the intervals allow for"));
  const made = block(sectionOf(finding), finding.title, finding.asks, facts, claimList(finding, true), measuredTables(finding),
    el("p", { class: "small soft footnote" }, finding.footnote), limits(finding), commands(finding));
  made.classList.add("finding");
  made.querySelector("h3").tabIndex = -1;
  return made;
}

function commands({ commands, imagenet }) {
  const list = (lines) => el("ul", { class: "commands" }, lines.map((line) => el("li", {}, el("code", {}, line))));
  return [
    commands.length ? [el("h4", {}, "Commands that train this"), list(commands)] : null,
    imagenet.length ? [el("h4", {}, "Commands that test it on ImageNet"), list(imagenet)] : null,
  ];
}

function notMeasuredBlock() {
  const left = board.findings.filter((finding) => !wasMeasured(finding));
  if (!left.length) return null;
  const name = (finding) => el("span", { id: `${sectionOf(finding)}-title`, class: "mono", tabindex: "-1" }, finding.study);
  const line = (finding) => el("li", {}, name(finding), `: ${finding.title}`);
  return block("claims-left", "Not measured here", `Studies without results of protocol ${board.protocol} yet.`,
    el("ul", { class: "small" }, left.map(line)));
}

// ---- what was measured of a study's claims: a line a difference, drawn and as numbers

// What is measured in other units has a scale of its own.
const UNITS = [
  { name: "points", digits: 1, fits: ({ on }) => on !== "kl" },
  { name: "nats", digits: 3, fits: ({ on }) => on === "kl" },
];

// Columns beside the difference. `shown`: only where it holds for some line; `told`: the name in a cell on a small screen.
const MEASURED = [
  { head: () => "teacher", name: "of", cell: (one) => one.teacher },
  { head: () => "on", cell: (one) => one.on.replaceAll("_", " "), told: "on", shown: ({ on }) => on !== "score" },
  { head: (_, scale) => [el("span", { class: "hidden" }, "drawn"), axis(scale)], name: "drawn", cell: drawnDifference },
  { head: (unit) => unit.name, name: "right", cell: (one, unit) => gapText(one.estimate, unit.digits) },
  { head: () => "n", name: "right", cell: (one) => String(one.n), told: "n" },
  { head: () => "m", name: "right", cell: (one) => String(one.m), told: "m" },
  { head: () => "claimed", name: "number", cell: (one) => one.expect ?? "–", told: "claimed", shown: ({ expect }) => expect },
  { head: () => "outcome", cell: (one) => outcomeBadge(one.outcome), shown: ({ outcome }) => outcome },
];

function measuredTables(finding) {
  const count = finding.claims.reduce((sum, claim) => sum + claim.measured.length, 0);
  const outcomes = unique(finding.claims.flatMap(({ measured }) => measured.map(({ outcome }) => outcome))).filter(known);
  const tables = UNITS.map((unit) => measuredTable(finding, unit));
  const content = [legend(outcomes, "Thick line: plain 95 % interval; thin: the simultaneous one, which decides."), tables];
  if (count <= FOLDED) return content;
  return el("details", { class: "fold" }, el("summary", {}, `${count} differences, drawn and as numbers`), content);
}

function measuredTable(finding, unit) {
  const groups = finding.claims.map((claim, i) => [`Claim ${i + 1}: ${claim.description}`, claim.measured.filter(unit.fits)])
    .filter(([, lines]) => lines.length);
  if (!groups.length) return null;
  const all = groups.flatMap(([, lines]) => lines);
  const scale = scaleOver(all.map((one) => one.estimate));
  const columns = MEASURED.filter(({ shown }) => !shown || all.some(shown));
  const texts = [["difference", null], ...columns.map(({ head, name }) => [head(unit, scale), name])];
  const heads = texts.map(([text, name]) => el("th", { scope: "col", role: "columnheader", class: name }, text));
  const several = finding.claims.length > 1;
  const group = (description) => el("th", { class: "group", scope: "colgroup", colspan: columns.length + 1, role: "columnheader" }, description);
  const lines = groups.map(([description, own]) => [
    several ? [el("tr", { role: "row" }, group(description))] : [], own.map((one) => measuredRow(one, unit, scale, columns))]);
  const head = el("thead", {}, el("tr", { role: "row" }, heads));
  return scroller(`${finding.title}, in ${unit.name}`, head, lines, { class: "measured", role: "table" });
}

function measuredRow(one, unit, scale, columns) {
  const arms = one.arms?.map((arm, i) => [i ? ", " : "", armText(arm)]);
  const taken = arms ? el("div", { class: "taken" }, "best on val: ", arms) : null;
  const cells = columns.map(({ name, told, cell }) => {
    const content = cell(one, unit, scale);
    return el("td", { class: content === "–" ? `${name ?? ""} absent` : name, role: "cell", "data-label": told }, content);
  });
  const head = el("th", { scope: "row", class: "mono", role: "rowheader" }, differenceText(one.difference), taken);
  return el("tr", { role: "row", "data-outcome": one.outcome }, head, cells);
}

// Breaks before a sign, never after one: only a sign has spaces around it.
function differenceText(difference) {
  return difference.split(/ (?=[-+] )/).map((term, i) => {
    const [, sign, arm] = term.match(/^(?:([-+]) )?(.*)$/);
    return [i ? " " : null, sign ? whole(`${sign === "-" ? "−" : sign}\u00a0`) : null, armText(arm)];
  });
}

function drawnDifference({ estimate, outcome }, unit, scale) {
  const kind = outcome ?? "";
  return strip(scale, kind, interval(scale, estimate), shape(kind, inside(scale, estimate[0])));
}
