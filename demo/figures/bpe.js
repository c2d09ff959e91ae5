// Byte-level BPE as trainer/tokenizer.py does it: a test holds the ids of the two against each other.

/**
 * GPT-2's cut of text into words, numbers and marks, with the trainer's pinned Unicode classes (trainer/pretokenize.py).
 * @param {{letters: string[], numbers: string[], spaces: string[]}} classes  ranges of code points: "61-7a", "aa"
 */
export function pattern({ letters, numbers, spaces }) {
  const [L, N, S] = [letters, numbers, spaces].map((ranges) =>
    ranges.map((range) => range.split("-").map((code) => `\\u{${code}}`).join("-")).join(""),
  );
  return new RegExp(`'(?:s|t|re|ve|m|ll|d)| ?(?:[${L}]+|[${N}]+|[^${S}${L}${N}]+)|[${S}]+(?![^${S}])|[${S}]+`, "gu");
}

export class Tokenizer {
  /**
   * @param {RegExp} words
   * @param {{byte_ids: number[], first: number, merges: number[]}} vocabulary  `first` is the id that the first merge
   *     makes; `merges` are pairs of ids, one pair after another
   * @param {number} size  ids in all: later merges are left out
   */
  constructor(words, { byte_ids, first, merges }, size = Infinity) {
    Object.assign(this, { words, first, merges, byteIds: byte_ids });
    this.bytes = new Map(byte_ids.map((id, byte) => [id, [byte]]));
    this.made = new Map(); // pair → id
    for (let i = 0; i < merges.length && first + i / 2 < size; i += 2) {
      this.made.set(pair(merges[i], merges[i + 1]), first + i / 2);
    }
  }

  /** @param {string} text @returns {number[]} */
  encode(text) {
    return (text.match(this.words) ?? []).flatMap((word) => this.encodeWord(word));
  }

  encodeWord(word) {
    const ids = Array.from(new TextEncoder().encode(word), (byte) => this.byteIds[byte]);
    for (;;) {
      let best = Infinity; // the merge that was learned first, where it fits first
      let at = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = this.made.get(pair(ids[i], ids[i + 1])) ?? Infinity;
        if (id < best) [best, at] = [id, i];
      }
      if (at < 0) return ids;
      ids.splice(at, 2, best);
    }
  }

  /** The two ids that merged into `id`, or null for a byte. */
  parts(id) {
    const i = 2 * (id - this.first);
    return i < 0 ? null : [this.merges[i], this.merges[i + 1]];
  }

  /** @returns {number[]} the bytes of a token */
  bytesOf(id) {
    if (!this.bytes.has(id)) this.bytes.set(id, this.parts(id).flatMap((part) => this.bytesOf(part)));
    return this.bytes.get(id);
  }

  /** The merges that made a token, in the order in which they were learned. @returns {number[]} the ids they made */
  history(id) {
    const parts = this.parts(id);
    if (!parts) return [];
    return [...new Set([...parts.flatMap((part) => this.history(part)), id])].sort((a, b) => a - b);
  }
}

const pair = (left, right) => left * 65536 + right;
