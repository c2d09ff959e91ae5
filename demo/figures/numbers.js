// Numbers as the figures write them; demo/site/live/numbers.py writes the same ones at build time (a test compares).
import { el } from "../page/dom.js";

const YEAR = 365.25 * 86400; // seconds
const grouped = (n) => Number(n.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 0 });

/** Three digits, without noughts behind the point: 96, 5.24. */
export const rounded = (n) => figure(n).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

/** Three digits: 0.016, 6.93, 11.9, 870, 48,600. */
export function figure(n) {
  const size = Math.abs(n);
  if (size >= 999.5) return grouped(n);
  if (size >= 99.95) return n.toFixed(0);
  if (size >= 9.995) return n.toFixed(1);
  if (size >= 0.0995 || size === 0) return n.toFixed(2);
  return Number(n.toExponential(1)).toFixed(1 - Math.floor(Math.log10(size)));
}

/** With a letter for the thousands: 5.20 M, 124 M, 10.0 B. */
export function short(n) {
  for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
    if (n >= 0.9995 * unit) return `${figure(n / unit)} ${letter}`;
  }
  return figure(n);
}

/** 1 token; 1,024 tokens. */
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** In words: 45 s, 39 min, 16.6 hours, 129 days, 6.31 years. */
export function duration(seconds) {
  if (seconds < 90) return `${rounded(seconds)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 172800) return `${rounded(seconds / 3600)} hours`;
  if (seconds < 2 * YEAR) return `${rounded(seconds / 86400)} days`;
  return `${rounded(seconds / YEAR)} years`;
}

/** $0.52, $12, $1,340. */
export function dollars(usd) {
  return usd >= 9.995 ? `$${usd.toLocaleString("en", { maximumFractionDigits: 0 })}` : `$${usd.toFixed(2)}`;
}

/** 7.5 × 10¹⁸ as nodes, with the exponent raised. @returns {(string | Node)[]} */
export function power(n) {
  const [mantissa, exponent] = n.toExponential(1).split("e");
  return [`${mantissa} × 10`, el("sup", { text: exponent.replace("+", "") })];
}
