// A logarithmic slider and its number field (demo/site/live/dial.py): either moves the other.
import { figure } from "./numbers.js";

export class Dial {
  /** @param {HTMLElement} root  of the figure @param {string} name @param {() => void} onInput */
  constructor(root, name, onInput) {
    const place = root.querySelector(`[data-dial="${name}"]`);
    [this.slider, this.field] = place.querySelectorAll("input");
    this.unit = place.querySelector("span").textContent;
    this.low = Number(this.field.min);
    this.high = Number(this.field.max);
    this.value = Number(this.field.value);
    this.slider.disabled = this.field.disabled = false;
    this.slider.addEventListener("input", () => {
      this.set(this.low * (this.high / this.low) ** Number(this.slider.value));
      onInput();
    });
    this.field.addEventListener("input", () => {
      const value = this.field.valueAsNumber;
      if (!(value >= this.low && value <= this.high)) return; // the browser marks the field as invalid
      this.value = value;
      this.move();
      onInput();
    });
    this.field.addEventListener("change", () => this.set(this.value));
  }

  set(value) {
    this.value = value;
    this.field.value = String(Number(value.toPrecision(4)));
    this.move();
  }

  move() {
    this.slider.value = String(Math.log(this.value / this.low) / Math.log(this.high / this.low));
    this.slider.setAttribute("aria-valuetext", `${figure(this.value)} ${this.unit}`);
  }
}
