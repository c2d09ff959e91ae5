// Tokenizer and Tokenize: merges as they form, any text as tokens, and what the text became.
import { barCell, el, memo, row } from "./dom.js";
import { count, figure, visible, whole } from "./format.js";

/** @param {import("./demo.js").Demo} demo */
export function mountTokens(demo) {
  const { parts, flow } = demo;
  let asked;

  // A vocabulary that is being learned cannot be tried.
  function attempt() {
    clearTimeout(asked);
    const text = parts.get("try").value;
    if (!text || flow.state.stages.tokenizer.status !== "done" || flow.state.mode === "recorded" || !flow.state.booted) return;
    asked = setTimeout(() => demo.run(flow.ask("try_tokenizer", { text })), 150);
  }
  parts.get("try").addEventListener("input", attempt);

  const merges = memo((list) => {
    parts.get("merges").replaceChildren(...list.map((m) => el("tr", {},
      el("td", { class: "r", text: whole(m.number) }),
      el("td", {}, el("code", { text: visible(m.left) }), " + ", el("code", { text: visible(m.right) })),
      el("td", {}, el("code", { text: visible(m.token) })))));
  });
  const pieces = memo((tokens) => {
    parts.get("pieces").replaceChildren(...tokens.map((t) => el("span", { text: visible(t.text), title: `token ${t.id}` })));
    const size = new Blob([parts.get("try").value]).size;
    parts.put("try-note", tokens.length ? `${whole(size)} bytes, ${whole(tokens.length)} tokens: ${figure(size / tokens.length)} bytes a token` : "");
  });
  const tried = memo(attempt);
  const frequent = memo((list) => {
    const most = Math.max(...list.map((t) => t.count));
    parts.get("frequent").replaceChildren(...list.map((t) => row(el("code", { text: visible(t.text) }), [barCell(t.count / most), whole(t.count)])));
  });

  return {
    update(state) {
      const { tokens } = state;
      if (state.merges.length) merges(state.merges, state.merges);
      parts.put("merge-rate", state.bytesPerToken ? `${figure(state.bytesPerToken)} bytes a token` : "");
      if (state.pieces) pieces(state.pieces, state.pieces);
      tried(state.stages.tokenizer.status);
      if (!tokens) return;
      parts.put("train-tokens", count(tokens.train_tokens));
      parts.put("validation-tokens", count(tokens.validation_tokens));
      parts.put("bytes-per-token", figure(tokens.bytes_per_token));
      parts.put("unigram", figure(tokens.unigram_entropy));
      if (tokens.frequent.length) frequent(tokens, tokens.frequent);
    },
    end: () => clearTimeout(asked),
  };
}
