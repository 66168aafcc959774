"use strict";
/* What a rater does: orders, saves, skips, flags, undoes; by keys, mouse or finger. */

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
  if (busy || !state || !state.turn) return;
  const body = { id: newId(), rater, turn: state.turn.name, seconds: spent() / 1000, ...what };
  Kept.write(key("unsent"), body);
  send(body, words);
}

/* A decision leaves the browser's store only once the server has it, or says that it must not count */
async function send(body, words) {
  asked += 1;
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
  if (busy || !state || !state.last) return;
  asked += 1;
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

let asked = 0;  // counts what the server was asked for: an answer to anything but the last is old

function show(now) {
  rater = now.rater;  // as the server spells it: the browser keeps things under it
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

/* Whether it is shown */
async function load(words = "") {
  const mine = asked += 1;
  const isOld = () => mine !== asked;
  try {
    const now = await Talk.insist(`/state?rater=${encodeURIComponent(rater)}`, null, (why) => isOld() || warn(why));
    if (isOld()) return false;
    show(now);
    warn(words);
    return true;
  } catch (error) {
    if (!isOld()) warn(Talk.why(error));
    return false;
  }
}

/* Another window may have decided meanwhile */
async function lookAgain() {
  if (busy || !state || document.visibilityState !== "visible") return;
  const before = asked;
  try {
    const now = await Talk.ask(`/state?rater=${encodeURIComponent(rater)}`);
    const [old, next] = [state, now].map((each) => each && each.turn && each.turn.name);
    if (before !== asked || old === next) return;
    show(now);
    warn("Another window has decided meanwhile: this is the next prompt.");
  } catch { /* the next decision says what is wrong */ }
}

async function begin() {
  state = null;
  $("main").hidden = true;
  $("rater").textContent = rater;
  if (!await load()) return;
  params.set("rater", rater);
  history.replaceState(null, "", `?${params}`);
  const unsent = Kept.read(key("unsent"));
  if (unsent) await send(unsent, "A decision that was not sent before is saved now.");
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
  if (busy || !state || !state.turn || !$("results").hidden) return;
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
  // a key that is held down must not skip ten prompts
  if (event.repeat && event.key !== "Backspace" && !event.altKey) return;
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
const dropped = (place, { index, tied }) => Order.insert(Order.without(entries, place), place, index, tied);
const letGo = makeDraggable($("ranking"), () => [...$("order").children], (place, target) => changed(dropped(place, target)),
  (place, target) => showFormula(target ? dropped(place, target) : entries));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") runClock();
  else pauseClock();
  lookAgain();
});
window.addEventListener("focus", lookAgain);
for (const kind of ["pointerdown", "pointermove", "wheel", "scroll", "keydown"]) {
  document.addEventListener(kind, touch, { capture: true, passive: true });
}
begin();
