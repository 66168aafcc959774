"use strict";
/* Asking the endpoint: one answer as it is written. */

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const Api = {
  key: "",

  async get(path) {
    const answer = await fetch(path, { headers: Api.headers(), cache: "no-store" });
    if (!answer.ok) throw await Api.refused(answer);
    return answer.json();
  },

  headers() {
    return Api.key ? { Authorization: `Bearer ${Api.key}` } : {};
  },

  async refused(answer) {
    let message = "";
    try {
      message = (await answer.json()).error.message;
    } catch { /* a proxy says anything */ }
    return new Refused(answer.status, message || `The server answered ${answer.status}.`);
  },

  /* Calls `take` with each chunk. Throws Refused, AbortError, or TypeError where there is no server. */
  async write(body, signal, take) {
    const headers = { "Content-Type": "application/json", ...Api.headers() };
    const asked = { ...body, stream: true, stream_options: { include_usage: true } };
    const answer = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(asked), signal });
    if (!answer.ok) throw await Api.refused(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    let isWhole = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n\n");
      rest = lines.pop();
      for (const line of lines) {
        const data = line.replace(/^data: /, "");
        const chunk = data === "[DONE]" ? null : JSON.parse(data);
        if (chunk && chunk.error) throw new Refused(500, chunk.error.message);
        if (chunk) take(chunk);
        else isWhole = true;
      }
    }
    if (!isWhole) throw new Refused(0, "The answer broke off.");
  },
};
