// What the figure "compute" measured on the reader's machine, kept in this browser for the other figures.
import { keep } from "../page/dom.js";

const KEPT = "compute";

/** The event on the document that says that there is a new result. */
export const MEASURED = "tabula-measured";

/** {cpu, naive, tuned, synced} in GFLOP/s, {device, size, date}, or `problem` where no GPU was; null before. */
export const measured = () => keep.read(KEPT);

export function keepMeasured(result) {
  keep.write(KEPT, result);
  document.dispatchEvent(new Event(MEASURED));
}

/** The best rate here in FLOP/s, and how a figure calls it; null before. @returns {{rate: number, name: string} | null} */
export function ownMachine() {
  const result = measured();
  if (!result) return null;
  const name = result.tuned ? "This machine, as measured" : "This machine, one CPU thread";
  return { rate: 1e9 * (result.tuned ?? result.cpu), name };
}
