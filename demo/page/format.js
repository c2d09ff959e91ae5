// Numbers as the page writes them: 48,600; 2 min 29 s; 5.08 M.

/** @param {number} n whole, with thousands set off */
export const whole = (n) => Math.round(n).toLocaleString("en");

/** 3 digits: 6.93, 11.9, 870, 48,600. */
export function figure(n) {
  if (!Number.isFinite(n)) return "–";
  const size = Math.abs(n);
  if (size >= 1000) return whole(Number(n.toPrecision(3)));
  return size >= 100 ? n.toFixed(0) : size >= 10 ? n.toFixed(1) : n.toFixed(2);
}

/** 108,864 → "0.11 M"; 512 → "512". */
export function count(n) {
  if (n >= 1e9) return `${figure(n / 1e9)} G`;
  return n >= 1e5 ? `${figure(n / 1e6)} M` : whole(n);
}

/** 5200000 → "5.2 MB". */
export function bytes(n) {
  if (n >= 1e9) return `${(n / 1e9).toFixed(1)} GB`;
  if (n >= 1e6) return n >= 1e7 ? `${whole(n / 1e6)} MB` : `${(n / 1e6).toFixed(2).replace(/0$/, "")} MB`;
  return n >= 1000 ? `${whole(n / 1000)} KB` : `${whole(n)} bytes`;
}

/** 149 → "2 min 29 s"; 6.2 → "6.2 s"; days from two days on. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s / 60} min`;
  const minutes = Math.round(s / 60);
  if (minutes < 48 * 60) return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
  return `${whole(s / 86400)} days`;
}

/** A rough duration: "20 s", "4 min", "3 h 30 min", "260 days". */
export function about(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds / 5) * 5)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return duration(Math.round(seconds / 600) * 600);
}

/** Seconds as a clock: [ "2:29", "min" ]. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return ["–", ""];
  const s = Math.round(seconds);
  if (s >= 3600) return [`${Math.floor(s / 3600)}:${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}`, "h"];
  return [`${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`, "min"];
}

/** How long ago: "3 s ago", "14 minutes ago". */
export function ago(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s ago`;
  const [n, unit] = seconds < 5400 ? [seconds / 60, "minute"] : seconds < 172800 ? [seconds / 3600, "hour"] : [seconds / 86400, "day"];
  return `${Math.round(n)} ${unit}${Math.round(n) === 1 ? "" : "s"} ago`;
}

/** 8.4e13 → ["8.4", "13"], for 8.4 × 10¹³. */
export function power(n) {
  const [mantissa, exponent] = n.toExponential(1).split("e");
  return [mantissa, exponent.replace("+", "")];
}

/** A probability: "41%", "0.6%". */
export const percent = (p) => (p >= 0.01 ? `${Math.round(p * 100)}%` : p > 0 ? `${Math.max(0.1, p * 100).toFixed(1)}%` : "0%");

/** A token so that its spaces and line ends are seen. */
export const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵");

/** A model's name of a device, without the driver's details: "llvmpipe (LLVM 15…)" → "llvmpipe". */
export const shortDevice = (name) => name.replace(/\s*\(.*\)\s*$/, "") || "a GPU";
