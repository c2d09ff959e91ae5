// Tabula as in the demo: the built site's own worker, asked for what its `bench` command times.

/** @param {import("./model.js").Shape & {name: string}} shape */
export async function open({ name }) {
  const { bundle } = self; // where the built bundle lies
  const { Client } = await import(new URL("page/client.js", bundle).href);
  const heard = () => {};
  const client = new Client(new URL("worker.js", bundle), { base: bundle, manifest: "manifest.json" }, heard);
  await client.boot();
  return {
    /** @param {number} count @returns {Promise<{ms: number, first: number, last: number}>} */
    async run(count) {
      const made = await client.send("bench", { workload: name, steps: count, precision: "f32" });
      return { ms: made.ms_per_step, first: made.first_loss, last: made.last_loss };
    },
  };
}
