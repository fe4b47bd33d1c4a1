// ---- what is shown, and its address

const EMPTY = {
  protocol: "", study: "", section: "", q: "", family: "", size: "", arm: "", verdict: "", sort: "", dir: "", open: "",
};
const FILTERS = ["q", "family", "size", "arm", "verdict"];
const PAGE = 200;
const TEACHERS = 40;
const state = { ...EMPTY };
let BOARDS = [];
let TABS = []; // the leaderboards, with the claims of a protocol after its first
let board; // the one of TABS that is shown
let shownRows = PAGE;
let shownTeachers = TEACHERS;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(EMPTY)) state[name] = given.get(name) ?? "";
  board = TABS.find((each) => each.protocol === state.protocol && each.study === state.study)
    ?? BOARDS.find((each) => each.protocol === state.protocol) ?? BOARDS[0];
  keepValid();
}

// A link of another day may name what is no longer there.
function keepValid() {
  if (!board) return;
  state.protocol = board.protocol;
  state.study = board.study;
  for (const [name, values] of Object.entries(choices())) if (!values.includes(state[name])) state[name] = "";
  if (!columnsHere().some((column) => column.name === state.sort)) state.sort = state.dir = "";
  if (!board.findings?.some((finding) => finding.study === state.section)) state.section = "";
}

function choices() {
  const values = (name) => unique(board.cells.map((cell) => cell[name]));
  return {
    family: values("family").sort(ordered),
    size: values("size").sort((a, b) => ordered(sizeOrder(a), sizeOrder(b))),
    arm: [...board.arms.keys()].filter((arm) => board.cells.some((cell) => cell.arm === arm)),
    verdict: VERDICTS.filter((kind) => board.cells.some((cell) => cell.kind === kind)),
  };
}

function writeAddress() {
  const first = board === BOARDS[0];
  const told = Object.entries(state).filter(([name, value]) => value && !(first && ["protocol", "study"].includes(name)));
  const hash = new URLSearchParams(told).toString();
  try {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  } catch {
    location.hash = hash; // where the history of a file may not be written
  }
}
