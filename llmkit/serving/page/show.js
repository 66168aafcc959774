"use strict";
/* A conversation as elements. All that a model or a tool writes becomes text nodes, never markup. */

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/* Control characters and text directions, which could hide what stands there, as pictures. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function append(element, text) {
  element.append(visible(text));
}

function firstLine(text) {
  const line = visible(text).split("\n").find((each) => each.trim()) || "";
  return line.length > 90 ? `${line.slice(0, 90)}\u2026` : line;
}

function shownArguments(text) {
  try {
    const values = Object.values(JSON.parse(text));
    if (values.length === 1 && typeof values[0] === "string") return values[0];
  } catch { /* shown as it is */ }
  return text;
}

/* One answer: reasoning and calls folded, text as it comes. */
class AnswerView {
  constructor(talk) {
    this.element = made("div", "turn assistant busy");
    this.element.setAttribute("aria-label", "Answer");
    talk.append(this.element);
    this.calls = [];
    this.begin();
  }

  /* Of each turn of its own, between calls of tools. */
  begin() {
    this.thought = null;
    this.said = made("div", "said");
    this.element.append(this.said);
  }

  think(text) {
    if (!this.thought) {
      this.thought = made("details", "thought");
      this.thought.append(made("summary", "", "Thinking \u2026"), made("div", "said"));
      this.said.before(this.thought);
      this.numThought = 0;
    }
    this.numThought += 1;
    const shown = this.thought.lastChild;
    append(shown, shown.firstChild ? text : text.replace(/^\n+/, ""));
  }

  say(text) {
    this.folded();
    const isFirst = !this.said.firstChild;
    append(this.said, isFirst ? text.replace(/^\n+/, "") : text);
  }

  folded() {
    if (this.thought) this.thought.firstChild.textContent = "Thought";
  }

  /* A turn that calls. Without calls that could be read, what it wrote is shown by its result alone. */
  called(message) {
    this.folded();
    for (const call of message.tool_calls || []) {
      const block = made("details", "call");
      const text = shownArguments(call.function.arguments);
      const summary = made("summary", "", `${call.function.name} `);
      summary.append(made("code", "", firstLine(text)));
      block.append(summary, made("pre", "arguments", visible(text)));
      block.dataset.id = call.id;
      this.element.append(block);
      this.calls.push(block);
    }
  }

  given(message, about) {
    let block = this.calls.find((each) => each.dataset.id === message.tool_call_id);
    if (!block) {
      block = made("details", "call");
      block.append(made("summary", "", "A call that could not be read"));
      this.element.append(block);
    }
    const took = about.seconds === undefined ? "" : `, ${about.seconds.toFixed(2)} s`;
    block.classList.toggle("failed", Boolean(about.failed));
    block.firstChild.append(about.failed ? " failed: " : " \u2192 ", made("code", "", firstLine(message.content)));
    block.append(made("p", "label", (about.failed ? "failed" : "result") + took), made("pre", "result", visible(message.content)));
    this.begin();
  }

  end(note) {
    this.folded();
    this.element.classList.remove("busy");
    if (note) this.element.append(made("p", "note", note));
  }
}

function showUser(talk, text) {
  const element = made("div", "turn user");
  element.setAttribute("aria-label", "You");
  const said = made("div", "said");
  append(said, text);
  element.append(said);
  talk.append(element);
}
