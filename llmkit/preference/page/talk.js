"use strict";
/* Talking to the server. A decision stays in the browser until the server has it, also across a closed window. */

const FIRST_WAIT = 1000;
const LONGEST_WAIT = 15000;
const FINAL = [400, 409, 413, 415];

/* An answer that is not what was asked for. Only llmkit says `message`, and after some it is no use to ask again;
   a proxy, or another program that has the port now, says anything. */
class Refused extends Error {
  constructor(status, body) {
    super(body.message || "");
    this.status = status;
    this.body = body;
  }

  get isFinal() {
    return Boolean(this.message) && FINAL.includes(this.status);
  }
}

const Talk = {
  token: new URLSearchParams(location.search).get("token") || "",

  async ask(path, body) {
    const options = { headers: { "X-Llmkit-Token": Talk.token }, cache: "no-store" };
    if (body) {
      options.method = "POST";
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    const answer = await fetch(path, options);
    const told = answer.headers.get("Content-Type") === "application/json" ? await answer.json() : {};
    if (!answer.ok || !told.raters) throw new Refused(answer.status, told);
    return told;
  },

  /* Until it is through. waiting(words): why it is not yet. */
  async insist(path, body, waiting) {
    for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      try {
        return await Talk.ask(path, body);
      } catch (error) {
        if (error.isFinal) throw error;
        waiting(Talk.why(error));
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  },

  why(error) {
    if (!(error instanceof Refused)) {
      return "The server does not answer. Start llmkit rank again; what you decided is kept here and will be sent.";
    }
    if (error.status === 507) return `Not saved yet: ${error.message}. What you decided is kept here and will be sent.`;
    if (error.status === 403) {
      return "The server does not know this page any more. Open the address that llmkit rank printed last. What you decided is kept here.";
    }
    if (error.isFinal) return error.message;
    return `Something else answers in place of llmkit rank (${error.status}). Start it again; what you decided is kept here and will be sent.`;
  },
};

/* Small things that the browser keeps, by file of rankings and rater. Full or forbidden storage is no reason to stop. */
const Kept = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  },
  write(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
    } catch { /* nothing is lost but the draft after a reload */ }
  },
};
