"use strict";
/* The page: a conversation in this window alone. Nothing of it is stored; the key lives until the window is closed. */

const $ = (id) => document.getElementById(id);

const Chat = {
  messages: [],
  asking: null,

  async begin() {
    Chat.key(sessionStorage.getItem("llmkit-key") || "");
    await Chat.about();
    $("form").addEventListener("submit", (event) => { event.preventDefault(); Chat.send(); });
    $("settings").addEventListener("submit", (event) => event.preventDefault());
    $("text").addEventListener("keydown", Chat.typed);
    $("text").addEventListener("input", Chat.grow);
    $("stop").addEventListener("click", Chat.stop);
    $("new").addEventListener("click", Chat.anew);
    $("show-settings").addEventListener("click", () => Chat.settings($("settings").hidden));
    $("key").addEventListener("change", () => { Chat.key($("key").value.trim()); Chat.about(); });
    document.addEventListener("keydown", Chat.pressed);
  },

  key(key) {
    Api.key = key;
    $("key").value = key;
    try {
      sessionStorage.setItem("llmkit-key", key);
    } catch { /* it is asked for again after a reload */ }
  },

  async about() {
    try {
      const about = await Api.get("about");
      const tools = about.tools.join(", ");
      $("about").textContent = `${about.context < 2 ** 31 ? `${about.context} tokens` : ""}${tools ? ` \u00b7 ${tools}` : ""}`;
      $("temperature").placeholder = String(about.temperature);
      $("tools-label").hidden = !tools;
      $("tool-names").textContent = tools;
      $("alert").hidden = true;
    } catch (error) {
      Chat.failed(error);
    }
  },

  settings(shows) {
    $("settings").hidden = !shows;
    $("show-settings").setAttribute("aria-expanded", String(shows));
    if (shows) $("system").focus();
  },

  typed(event) {
    // while characters are composed, Enter takes one of them
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      Chat.send();
    }
  },

  pressed(event) {
    if (event.key === "Escape" && Chat.asking) Chat.stop();
    if (event.ctrlKey && event.shiftKey && event.code === "KeyO") {
      event.preventDefault();
      Chat.anew();
    }
  },

  grow() {
    const text = $("text");
    text.rows = Math.min(12, text.value.split("\n").length);
  },

  stop() {
    if (Chat.asking) Chat.asking.abort();
  },

  anew() {
    Chat.stop();
    Chat.messages = [];
    $("talk").replaceChildren($("empty"));
    $("empty").hidden = false;
    $("alert").hidden = true;
    $("text").focus();
  },

  body() {
    const system = $("system").value.trim();
    const body = { model: document.body.dataset.model, messages: [...Chat.messages] };
    if (system) body.messages.unshift({ role: "system", content: system });
    if ($("temperature").value !== "") body.temperature = Number($("temperature").value);
    if ($("max-tokens").value !== "") body.max_tokens = Number($("max-tokens").value);
    if (!$("tools").checked) body.tool_choice = "none";
    return body;
  },

  async send() {
    const text = $("text").value.trim();
    if (!text || Chat.asking) return;
    $("empty").hidden = true;
    $("alert").hidden = true;
    $("text").value = "";
    Chat.grow();
    showUser($("talk"), text);
    const messages = Chat.messages;
    const asked = messages.length;
    messages.push({ role: "user", content: text });
    const isKept = await Chat.answer(messages, new AnswerView($("talk")));
    if (isKept || messages !== Chat.messages) return;
    // it was refused: the text comes back, so that it can be mended
    messages.length = asked;
    $("talk").lastChild.remove();
    $("talk").lastChild.remove();
    $("empty").hidden = messages.length > 0;
    if (!$("text").value) $("text").value = text;
    Chat.grow();
  },

  /* Whether anything was written, which then belongs to the history. */
  async answer(messages, view) {
    const asking = new AbortController();
    const turn = { role: "assistant", content: "" };
    const written = { turn, finish: null, usage: null, has: false, wantsCalls: false };
    Chat.asked(asking);
    try {
      await Api.write(Chat.body(), asking.signal, (chunk) => Chat.take(chunk, written, messages, view));
      view.end(Chat.noted(written));
      $("status").textContent = "Answered";
    } catch (error) {
      const isStopped = error.name === "AbortError";
      if (!isStopped) Chat.failed(error);
      if (!isStopped && !written.has) return false;
      view.end(isStopped ? "stopped" : "broken off");
    } finally {
      if (Chat.asking === asking) Chat.asked(null);
    }
    const unmade = Chat.unmade(messages);
    messages.push(...(unmade.length ? unmade : [written.turn]));
    return true;
  },

  /* Results of calls that nobody waited for: a history holds none without. */
  unmade(messages) {
    const last = messages.findLastIndex((each) => each.role !== "tool");
    const given = messages.slice(last + 1).map((each) => each.tool_call_id);
    return (messages[last].tool_calls || []).filter((call) => !given.includes(call.id))
      .map((call) => ({ role: "tool", tool_call_id: call.id, content: "not called: stopped before" }));
  },

  take(chunk, written, messages, view) {
    if (chunk.usage) written.usage = chunk.usage;
    if (chunk.llmkit?.ended === "calls") written.wantsCalls = true;
    if (chunk.llmkit?.message) {
      written.has = true;
      messages.push(chunk.llmkit.message);
      if (chunk.llmkit.message.role === "tool") view.given(chunk.llmkit.message, chunk.llmkit);
      else view.called(chunk.llmkit.message);
      written.turn = { role: "assistant", content: "" };
    }
    for (const choice of chunk.choices) {
      if (choice.finish_reason) written.finish = choice.finish_reason;
      const thought = choice.delta.reasoning_content || choice.delta.reasoning; // the second is newer vLLM's
      if (thought) {
        written.has = true;
        written.turn.reasoning_content = ((written.turn.reasoning_content || "") + thought).replace(/^\n+/, "");
        view.think(thought);
      }
      if (choice.delta.content) {
        written.has = true;
        written.turn.content = (written.turn.content + choice.delta.content).replace(/^\n+/, "");
        view.say(choice.delta.content);
      }
    }
    Chat.follow();
  },

  noted(written) {
    const usage = written.usage;
    const numThought = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
    const used = usage ? `${usage.completion_tokens} tokens${numThought ? `, ${numThought} of them reasoning` : ""}` : "";
    if (written.wantsCalls) return `${used}, it wants more calls than the server makes`;
    return written.finish === "length" ? `${used}, cut off` : used;
  },

  asked(asking) {
    Chat.asking = asking;
    $("send").hidden = Boolean(asking);
    $("stop").hidden = !asking;
    if (asking) $("status").textContent = "Writing";
    $("text").focus({ preventScroll: true });
    Chat.follow(true);
  },

  /* Down with the text, unless one has scrolled up to read. */
  follow(always = false) {
    const page = document.documentElement;
    const isBelow = page.scrollHeight - page.scrollTop - page.clientHeight < 160;
    if (isBelow || always) page.scrollTop = page.scrollHeight;
  },

  failed(error) {
    $("alert").textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    $("alert").hidden = false;
    if (error.status === 401) {
      $("key-label").hidden = false;
      Chat.settings(true);
      $("key").focus();
    }
  },
};

Chat.begin();
