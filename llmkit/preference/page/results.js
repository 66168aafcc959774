"use strict";
/* How far the raters are, and how far they agree. */

const prompts = (num) => `${num} prompt${num === 1 ? "" : "s"}`;

function tau(found) {
  if (found.tau === null) return "\u2013";
  const number = (value) => value.toFixed(2).replace("-", "\u2212");
  const bounds = found.low === null ? "" : ` [${number(found.low)}, ${number(found.high)}]`;
  return `${number(found.tau)}${bounds} \u00b7 ${prompts(found.num_items - found.num_no_order)}`;
}

function ceiling(found) {
  if (!found) return "\u2013";
  const percent = (share) => Math.round(100 * share);
  return `${percent(found.share)} % [${percent(found.low)}, ${percent(found.high)}] \u00b7 ${prompts(found.num_items)}`;
}

/* On a narrow page each cell says what its column is */
function fill(table, rows) {
  const columns = [...table.querySelectorAll("thead th")].map((each) => each.textContent);
  table.hidden = !rows.length;
  table.querySelector("tbody").replaceChildren(...rows.map(([first, ...others]) =>
    make("tr", {}, make("th", { scope: "row" }, first),
      ...others.map((value, index) => make("td", { class: "num", "data-label": columns[index + 1] }, `${value}`)))));
}

function finish() {
  said("All done. Thank you.");
  showResults();
}

async function showResults() {
  if (!state) return;
  let found;
  try {
    found = await Talk.ask("/results");
  } catch (error) {
    return warn(Talk.why(error));
  }
  $("finished").textContent = "All done, thank you. Everything is saved; this window may be closed.";
  $("finished").hidden = Boolean(state.turn);
  $("none").hidden = Boolean(found.raters.length);
  fill($("raters"), found.raters.map((row) =>
    [row.rater, `${row.done} of ${row.total}`, row.skipped, row.flagged, Math.round(row.seconds), tau(row.with_oneself), ceiling(row.ceiling)]));
  fill($("between"), found.between.map((row) =>
    [`${row.first}, ${row.second}`, tau(row), `${row.num_same} of ${row.num_pairs}`]));
  $("stale").textContent = `${found.num_stale} decisions do not count: their prompts or answers have changed since.`;
  $("stale").hidden = !found.num_stale;
  $("results").hidden = false;
  $("main").hidden = true;
  $("hide-results").hidden = !state.turn;
  $("undo-finished").hidden = Boolean(state.turn);
  pauseClock();
  $("results-title").focus();
}

function hideResults() {
  $("results").hidden = true;
  $("main").hidden = !state || !state.turn;
  runClock();
}
