/**
 * Elements, and lists that change in place.
 *
 * Strings become text nodes and attributes, never markup: what somebody typed cannot become
 * anything else on the way.
 */

const SVG = "http://www.w3.org/2000/svg";

/** `h("button", { class: "plain", onclick: f }, "text", child)`; null children are left out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the text where it is another: an unchanged text costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Somebody's name: its direction stays inside, and a name without visible characters has a stand-in. */
export function name(text, otherwise = "") {
  const isVisible = /[^\s\p{C}\u115f\u1160\u3164\uffa0\u2800]/u.test(text || "");
  return h("bdi", { class: "name", title: otherwise || null }, isVisible ? text : otherwise || "—");
}

/**
 * A list of elements that follows a list of items: what stays is not touched.
 *
 * `make(item)` returns `{ element, update(item) }`; `update` is called for another object under the
 * same key.
 */
export class KeyedList {
  constructor(container, key, make) {
    this.container = container;
    this.key = key;
    this.make = make;
    this.views = new Map();
  }

  show(items) {
    const keys = new Set(items.map(this.key));
    for (const [key, view] of this.views) {
      if (keys.has(key)) continue;
      keepFocus(view.element);
      view.element.remove();
      this.views.delete(key);
    }
    let place = this.container.firstElementChild;
    for (const item of items) {
      let view = this.views.get(this.key(item));
      if (!view) {
        view = { ...this.make(item), item };
        this.views.set(this.key(item), view);
      } else if (view.item !== item) {
        view.item = item;
        view.update(item);
      }
      if (view.element === place) place = place.nextElementSibling;
      else this.container.insertBefore(view.element, place);
    }
  }
}

/** The focus of an element that goes moves to its neighbour, not to the top of the page. */
function keepFocus(element) {
  if (!element.contains(document.activeElement)) return;
  const neighbour = element.nextElementSibling || element.previousElementSibling;
  const target = neighbour && neighbour.querySelector("button, a[href]");
  if (target) target.focus();
}
