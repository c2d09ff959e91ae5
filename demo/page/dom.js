// The few things that every view does with the document. Text enters it as text only.

/**
 * A new element. `attributes`: text, class and on… handlers are set as properties, the rest as attributes.
 * @param {string} tag
 * @param {Object<string, any>} attributes
 * @param {...(Node|string)} children
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** The parts of the markup that views fill in, by their data-t: one look-up each. */
export class Parts {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.found = new Map();
  }

  /** @param {string} name @returns {any} */
  get(name) {
    if (!this.found.has(name)) this.found.set(name, this.root.querySelector(`[data-t="${name}"]`));
    return this.found.get(name);
  }

  /** Sets a text, if it is another one: the browser lays nothing out for nothing. */
  put(name, text) {
    const node = this.get(name);
    if (node.textContent !== String(text)) node.textContent = String(text);
  }

  show(name, visible) {
    this.get(name).hidden = !visible;
  }
}

/** Shows the symbol of a status in an icon of the markup. */
export function setIcon(svg, status) {
  if (svg.dataset.status === status) return;
  svg.dataset.status = status;
  svg.querySelector("use").setAttribute("href", `#tb-${status}`);
}

/** A table row whose first cell is its heading; `r` cells stand to the right. */
export function row(heading, cells, attributes = {}) {
  const head = el("th", { scope: "row" });
  head.append(heading);
  return el("tr", attributes, head, ...cells.map((cell) => {
    if (cell instanceof Node) return cell;
    return el("td", { class: "r", text: cell });
  }));
}

/** A cell with a bar of `share` (0 to 1) of its width. */
export function barCell(share, on = false) {
  const bar = el("span", { class: on ? "bar bar--on" : "bar" });
  bar.style.width = `${Math.min(100, Math.max(0.5, share * 100))}%`;
  return el("td", { "aria-hidden": true }, el("div", {}, bar));
}

/**
 * Makes a list anew. The focus, if it was in it, stays in its row: on the button of the same text, of the text `next`
 * gives for that one, or on the first; where no row is left, on `otherwise`.
 */
export function remake(list, items, otherwise, next = {}) {
  const { activeElement: focused } = document;
  const at = [...list.children].findIndex((item) => item.contains(focused));
  list.replaceChildren(...items);
  if (at < 0) return;
  const buttons = [...(items[Math.min(at, items.length - 1)]?.querySelectorAll("button:enabled") ?? [])];
  const called = (text) => buttons.find((button) => button.textContent === text);
  (called(focused.textContent) ?? called(next[focused.textContent]) ?? buttons[0] ?? otherwise).focus();
}

/** Remembers what a part was made from, and makes it again only for something else. */
export function memo(make) {
  let last;
  return (key, ...rest) => {
    if (key === last) return;
    last = key;
    make(...rest);
  };
}

/** What the reader keeps in this browser; a browser that keeps nothing is no error. */
export const keep = {
  read(name, fallback = null) {
    try {
      return JSON.parse(localStorage.getItem(`tabula.${name}`)) ?? fallback;
    } catch {
      return fallback;
    }
  },
  write(name, value) {
    try {
      if (value === null) localStorage.removeItem(`tabula.${name}`);
      else localStorage.setItem(`tabula.${name}`, JSON.stringify(value));
    } catch {
      // private windows refuse; the page works without
    }
  },
};
