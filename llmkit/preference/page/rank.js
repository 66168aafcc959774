"use strict";
/* The page. Text of models reaches it through textContent only. */

const LONG = 20000;
const $ = (id) => document.getElementById(id);
const file = document.body.dataset.name;
const params = new URLSearchParams(location.search);

let rater = params.get("rater") || document.body.dataset.rater;
let state = null;
let entries = [];
let pendingTie = false;
let busy = false;
let milliseconds = 0;
let since = null;

const key = (what) => `llmkit/${file}/${rater}/${what}`;
const numAnswers = () => (state && state.turn ? state.turn.answers.length : 0);
const ordinal = (n) => `${n}${{ 1: "st", 2: "nd", 3: "rd" }[n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th"}`;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/* --- time spent looking at it --- */

function pauseClock() {
  if (since !== null) milliseconds += performance.now() - since;
  since = null;
}

function runClock() {
  if (since === null && document.visibilityState === "visible") since = performance.now();
}

function spent() {
  pauseClock();
  runClock();
  return milliseconds;
}

/* --- what is shown --- */

function said(text) {
  $("status").textContent = text;
}

function warn(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function text(content, name) {
  const box = make("div", { class: "said", dir: "auto", role: "group", "aria-label": name });
  if (!content.trim()) {
    box.append(make("span", { class: "muted" }, content ? "(only blanks)" : "(nothing)"));
    return box;
  }
  if (content.length <= LONG) {
    box.textContent = content;
    return box;
  }
  const rest = make("button", { type: "button", class: "link", onclick: () => box.replaceChildren(content) },
    `Show all ${content.length.toLocaleString("en")} characters`);
  box.append(`${content.slice(0, LONG)}\u2026 `, rest);
  return box;
}

function showTurn() {
  const { turn } = state;
  $("main").hidden = !turn || !$("results").hidden;
  if (!turn) return;
  $("prompt").querySelector(".messages").replaceChildren(...turn.prompt.map(({ role, content }) =>
    make("div", { class: `message ${role === "user" || role === "prompt" ? "asked-by" : ""}` },
      role === "prompt" ? "" : make("div", { class: "who" }, role), text(content, `Prompt, ${role}`))));
  $("answers").querySelector(".cards").replaceChildren(...turn.answers.map((content, place) =>
    make("article", { class: "card", "data-place": place },
      make("div", { class: "head" },
        make("button", { type: "button", class: "number", onclick: () => choose(place) }, `${place + 1}`),
        make("span", { class: "rank" })),
      text(content, `Answer ${place + 1}`))));
  for (const box of document.querySelectorAll("main .said")) {
    // what scrolls must be reached by keys
    if (box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
  }
  showOrder();
}

function showOrder() {
  const focused = document.activeElement && document.activeElement.dataset.focus;
  const ranks = Order.ranks(entries);
  const num = numAnswers();
  $("order").replaceChildren(...entries.map((entry, index) => orderedRow(entry, index, ranks)));
  const rest = [...Array(num).keys()].filter((place) => !ranks.has(place));
  $("rest").replaceChildren(...rest.map(restRow));
  $("hint").textContent = hint(rest);
  for (const card of document.querySelectorAll(".card")) showBadge(card, ranks);
  $("formula").textContent = Order.formula(entries, pendingTie) || "no order yet";
  $("save").disabled = busy || rest.length > 1 || !entries.length;
  $("tie").disabled = busy || !entries.length || !rest.length;
  $("tie").setAttribute("aria-pressed", pendingTie);
  $("back").disabled = busy || !entries.length;
  for (const id of ["skip", "flag"]) $(id).disabled = busy;
  for (const id of ["undo", "undo-finished"]) $(id).disabled = busy || !state.last;
  const again = focused && document.querySelector(`[data-focus="${focused}"]`);
  if (again && !again.disabled) again.focus();
  else if (again) again.closest("li").querySelector("button:not(:disabled)")?.focus();
}

function hint(rest) {
  if (!entries.length) return "Press the numbers from best to worst, or drag.";
  if (rest.length === 1) return pendingTie ? "The one that is left ties with the last." : "The one that is left comes last.";
  return rest.length ? (pendingTie ? "Which one is as good as the last?" : "Which one is next?") : "Save with Enter.";
}

function showBadge(card, ranks) {
  const place = Number(card.dataset.place);
  const rank = ranks.get(place);
  const button = card.querySelector(".number");
  card.classList.toggle("placed", rank !== undefined);
  card.querySelector(".rank").textContent = rank === undefined ? "" : ordinal(rank);
  button.setAttribute("aria-label", rank === undefined
    ? `Answer ${place + 1}: put it next` : `Answer ${place + 1} is ${ordinal(rank)}: take it out`);
}

function tool(what, place, label, symbol, disabled, act) {
  const button = make("button", { type: "button", class: "tool", "data-focus": `${what}-${place}`, "aria-label": label, title: label, onclick: act }, symbol);
  button.disabled = disabled || busy;
  return button;
}

function grip() {
  return make("span", { class: "grip", "aria-hidden": "true", title: "Drag; or focus a row and press Alt and an arrow" }, "\u2807");
}

function snippet(place) {
  const content = state.turn.answers[place].slice(0, 160).trim().replace(/\s+/g, " ");
  return make("span", { class: "snippet", dir: "auto" }, content || "(nothing)");
}

function orderedRow({ place, tied }, index, ranks) {
  const n = place + 1;
  return make("li", { "data-place": place, class: tied ? "tied" : "" }, grip(),
    make("span", { class: "where" }, tied ? "=" : ordinal(ranks.get(place))),
    make("span", { class: "badge" }, `${n}`), snippet(place),
    make("span", { class: "tools" },
      tool("tie", place, tied ? `Answer ${n} is worse than the one above` : `Answer ${n} is as good as the one above`, "=", index === 0, () => changed(Order.toggle(entries, place))),
      tool("up", place, `Move answer ${n} up`, "\u2191", index === 0, () => moved(place, -1)),
      tool("down", place, `Move answer ${n} down`, "\u2193", index === entries.length - 1, () => moved(place, 1)),
      tool("out", place, `Take answer ${n} out`, "\u00d7", false, () => changed(Order.without(entries, place)))));
}

function restRow(place) {
  const n = place + 1;
  return make("li", { "data-place": place }, grip(), make("span", { class: "badge" }, `${n}`), snippet(place),
    make("span", { class: "tools" }, tool("next", place, `Put answer ${n} next`, "+", false, () => choose(place))));
}

function showProgress() {
  const { done, total, seconds } = state.progress;
  $("bar").max = Math.max(total, 1);
  $("bar").value = done;
  const pace = seconds === null ? "" : ` \u00b7 ${Math.round(seconds)} s each \u00b7 ${left((total - done) * seconds)}`;
  $("pace").textContent = `${done} of ${total} done${done < total ? pace : ""}`;
  $("rater").textContent = state.rater;
  document.title = state.turn ? `Rank: ${done + 1} of ${total}` : "Rank: all done";
  $("raters-known").replaceChildren(...state.raters.map((name) => make("option", { value: name })));
}

function left(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `about ${minutes} min left` : `about ${(minutes / 60).toFixed(1)} h left`;
}

/* --- changes of the order --- */

function changed(now, words) {
  if (busy) return;
  entries = now;
  if (!entries.length || entries.length === numAnswers()) pendingTie = false;
  keepDraft();
  showOrder();
  said(words || `Order: ${Order.formula(entries, pendingTie) || "none"}`);
}

function choose(place) {
  if (busy || place >= numAnswers()) return;
  if (Order.at(entries, place) >= 0) return changed(Order.without(entries, place), `Answer ${place + 1} taken out.`);
  const tied = pendingTie;
  pendingTie = false;
  changed(Order.insert(entries, place, entries.length, tied));
}

function moved(place, step) {
  changed(Order.move(entries, place, step));
}

function takeBack() {
  if (pendingTie) {
    pendingTie = false;
    changed(entries);
  } else if (entries.length) changed(entries.slice(0, -1));
}

function tieNext() {
  if (!entries.length || entries.length === numAnswers()) return;
  pendingTie = !pendingTie;
  changed(entries);
}

function keepDraft() {
  Kept.write(key("draft"), state.turn ? { turn: state.turn.name, entries, pendingTie, milliseconds: spent() } : null);
}

/* --- saving --- */

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function save() {
  const num = numAnswers();
  if (busy || !entries.length || entries.length < num - 1) return;
  const last = [...Array(num).keys()].find((place) => Order.at(entries, place) < 0);
  if (last !== undefined) entries = Order.insert(entries, last, entries.length, pendingTie);
  pendingTie = false;
  decide({ groups: Order.groups(entries) }, `Saved ${Order.formula(entries, false)}.`);
}

function decide(what, words) {
  if (busy || !state.turn) return;
  const body = { id: newId(), rater, turn: state.turn.name, seconds: spent() / 1000, ...what };
  Kept.write(key("unsent"), body);
  send(body, words);
}

/* A decision leaves the browser's store only once the server has it, or says that it must not count */
async function send(body, words) {
  setBusy(true);
  try {
    const now = await Talk.insist("/decide", body, warn);
    warn("");
    Kept.write(key("unsent"), null);
    show(now);
    said(words);
  } catch (error) {
    Kept.write(key("unsent"), null);
    warn(Talk.why(error));
    if (error.body.state) show(error.body.state);
    else await load(Talk.why(error));
  } finally {
    setBusy(false);
  }
}

async function undo() {
  if (busy || !state.last) return;
  setBusy(true);
  try {
    const now = await Talk.ask("/undo", { id: state.last.id, rater });
    hideResults();
    show(now);
    warn("");
    said("Taken back: this is the last prompt that you decided.");
  } catch (error) {
    warn(Talk.why(error));
    if (error instanceof Refused && error.body.state) show(error.body.state);
  } finally {
    setBusy(false);
  }
}

function setBusy(now) {
  busy = now;
  document.body.setAttribute("aria-busy", now);
  if (state) showOrder();
}

/* --- turns --- */

function show(now) {
  const isSame = state && state.rater === now.rater && state.turn && now.turn && state.turn.name === now.turn.name;
  state = now;
  showProgress();
  if (isSame && !now.draft) return showOrder();
  const draft = now.turn && Kept.read(key("draft"));
  const isKept = draft && draft.turn === now.turn.name;
  entries = now.draft ? Order.of(now.draft) : isKept ? draft.entries : [];
  pendingTie = Boolean(isKept && draft.pendingTie);
  pauseClock();
  milliseconds = isKept ? draft.milliseconds : 0;
  runClock();
  if (now.draft) keepDraft();
  showTurn();
  if (!now.turn) return finish();
  window.scrollTo(0, 0);
  $("prompt-title").focus({ preventScroll: true });
}

async function load(words = "") {
  try {
    show(await Talk.insist(`/state?rater=${encodeURIComponent(rater)}`, null, warn));
    warn(words);
  } catch (error) {
    warn(Talk.why(error));
  }
}

/* Another window may have decided meanwhile */
async function lookAgain() {
  if (busy || !state || document.visibilityState !== "visible") return;
  try {
    const before = state.turn && state.turn.name;
    const now = await Talk.ask(`/state?rater=${encodeURIComponent(rater)}`);
    if (busy || now.rater !== rater || before === (now.turn && now.turn.name)) return;
    show(now);
    said("Another window has decided meanwhile: this is the next prompt.");
  } catch { /* the next decision says what is wrong */ }
}

async function begin() {
  params.set("rater", rater);
  history.replaceState(null, "", `?${params}`);
  state = null;
  const unsent = Kept.read(key("unsent"));
  await load();
  if (unsent) await send(unsent, "A decision that was not sent before is saved now.");
}

/* --- results --- */

function tau(found) {
  if (found.tau === null) return "\u2013";
  const number = (value) => value.toFixed(2).replace("-", "\u2212");
  const bounds = found.low === null ? "" : ` [${number(found.low)}, ${number(found.high)}]`;
  return `${number(found.tau)}${bounds}, ${found.num_items - found.num_no_order}`;
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
    [row.rater, `${row.done} of ${row.total}`, row.skipped, row.flagged, Math.round(row.seconds), tau(row.with_oneself)]));
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
  $("main").hidden = !state.turn;
  runClock();
}

/* --- hands --- */

const openDialog = () => document.querySelector("dialog[open]");

function dialog(id, act) {
  const found = $(id);
  found.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    found.close();
    act();
  });
  const close = found.querySelector("[data-close]");
  if (close) close.addEventListener("click", () => found.close());
}

function flag() {
  if (busy || !state.turn || !$("results").hidden) return;
  $("reason").value = "";
  $("flag-dialog").showModal();
}

function skip() {
  if ($("results").hidden) decide({ skipped: true }, "Skipped.");
}

function changeRater() {
  if (busy) return;
  $("name").value = "";
  $("rater-dialog").showModal();
}

dialog("flag-dialog", () => {
  const reason = $("reason").value.trim();
  if (reason) decide({ flagged: reason }, "Flagged.");
});
dialog("rater-dialog", () => {
  const name = $("name").value.trim();
  if (!name || name === rater) return;
  rater = name;
  hideResults();
  begin();
});
dialog("help-dialog", () => Kept.write("llmkit/keys", $("keys-on").checked));

const KEYS = { s: skip, f: flag, u: undo, "=": tieNext, Backspace: takeBack };

function onKey(event) {
  if (!state || openDialog() || event.ctrlKey || event.metaKey) return;
  const target = event.target;
  if (event.altKey) {
    const row = target.closest("#order li");
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!row || !step) return;
    event.preventDefault();
    return moved(Number(row.dataset.place), step);
  }
  const isButton = target.closest("button, a, summary");
  if (event.key === "Enter" && !isButton && $("results").hidden) return save();
  if (Kept.read("llmkit/keys") === false) return;
  if (event.key === "?") return $("show-help").click();
  if (event.key === "r") return $("results").hidden ? showResults() : state.turn && hideResults();
  if (!$("results").hidden && event.key !== "u") return;
  if (/^[1-9]$/.test(event.key)) return choose(Number(event.key) - 1);
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
}

document.addEventListener("keydown", onKey);
for (const [id, act] of Object.entries({
  save, tie: tieNext, back: takeBack, skip, flag, undo, "undo-finished": undo, rater: changeRater,
  "show-results": showResults, "hide-results": hideResults,
})) $(id).addEventListener("click", act);
$("show-help").addEventListener("click", () => {
  $("keys-on").checked = Kept.read("llmkit/keys") !== false;
  $("help-dialog").showModal();
});
makeDraggable($("ranking"), () => [...$("order").children], (place, target) =>
  changed(Order.insert(Order.without(entries, place), place, target.index, target.tied)));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") runClock();
  else pauseClock();
  lookAgain();
});
window.addEventListener("focus", lookAgain);
begin();
