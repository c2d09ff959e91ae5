// Settings: presets with the time that they take here, the advanced form, and what a run costs.
import { keep, memo } from "./dom.js";
import { about, bytes, count, power } from "./format.js";
import { expectedSeconds, flops, half, memory, MODEL_FIELDS, parameters, PRESETS, tokens } from "./presets.js";

/** @param {import("./demo.js").Demo} demo */
export function mountSettings(demo) {
  const { root, parts, flow } = demo;
  const radios = [...root.querySelectorAll('input[name="tb-preset"]')];
  const fields = [...root.querySelectorAll("[data-field]")];

  radios.forEach((radio) => radio.addEventListener("change", () => flow.settings.choose(radio.value)));
  fields.forEach((input) => input.addEventListener("input", () => {
    const text = input.value.trim();
    const chosen = input.matches("select");
    flow.settings.set({ [input.dataset.field]: chosen ? text : text === "" ? NaN : Number(text) });
  }));
  for (const name of ["awake", "hidden-pause", "keys"]) {
    const box = parts.get(name);
    box.checked = keep.read(name, name === "keys");
    box.addEventListener("change", () => {
      keep.write(name, box.checked);
      demo.draw(false);
    });
  }

  const times = memo((peak) => {
    for (const [name, { model, train }] of Object.entries(PRESETS)) {
      const seconds = expectedSeconds(model, train, peak);
      root.querySelector(`[data-time="${name}"]`).textContent = Number.isFinite(seconds) ? about(seconds) : "";
    }
  });
  const compute = memo((total) => {
    const [mantissa, exponent] = power(total);
    const raised = document.createElement("sup");
    raised.textContent = exponent;
    parts.get("fact-compute").replaceChildren(`${mantissa} × 10`, raised, " FLOPs");
  });

  return {
    update(state) {
      const { model, train, budget, rule } = state;
      const locked = ["working", "paused", "looking"].includes(state.phase) || state.mode === "recorded";
      parts.get("presets").disabled = locked;
      parts.get("fields").disabled = locked;
      parts.show("locked", locked);
      parts.put("locked", state.mode === "recorded" ? "These are the recorded run’s." : "Locked while this run goes on.");
      times(state.peak, state.peak);
      for (const radio of radios) {
        radio.checked = radio.value === state.preset;
        radio.disabled = radio.value === "gpt2" || (state.device?.software === true && !["nano", "micro"].includes(radio.value));
        radio.closest("label").classList.toggle("choice__row--off", radio.disabled);
      }
      for (const input of fields) {
        const { field } = input.dataset;
        const ofModel = MODEL_FIELDS.includes(field);
        const value = (ofModel ? model : train)[field];
        input.disabled = ofModel && (locked || state.base !== null); // a fieldset disables the others
        if (field === "precision") input.disabled = !half(state.device);
        if (document.activeElement !== input && (input.matches("select") || Number.isFinite(value))) input.value = String(value ?? "f32");
        input.setAttribute("aria-invalid", String(rule?.field === field));
      }
      parts.put("precision", half(state.device) ? "Mixed multiplies 16-bit numbers and keeps weights and sums in 32: faster on most GPUs, a little less exact." : "Mixed precision takes 16-bit numbers, which this GPU does not offer to the page.");
      parts.put("rule", rule?.rule ?? "");
      if (rule) {
        parts.get("advanced").open = true;
        for (const name of ["fact-parameters", "fact-memory", "fact-tokens"]) parts.put(name, "–");
        return;
      }
      const read = tokens(model, train);
      const passes = state.tokens ? `, ${(read / state.tokens.train_tokens).toFixed(1)} passes` : "";
      parts.put("fact-parameters", count(budget?.parameters ?? parameters(model)));
      parts.put("fact-memory", budget ? bytes(budget.device_memory) : `about ${bytes(memory(model, train))}`);
      compute(budget?.total_flops ?? flops(model, train), budget?.total_flops ?? flops(model, train));
      parts.put("fact-tokens", `${count(read)} tokens${passes}`);
    },
  };
}
