/** What the browser remembers for this tab, or for this site; where it may not, the page does. */

export const tab = remembered("sessionStorage");
export const site = remembered("localStorage");

function remembered(kind) {
  const memory = new Map();
  let kept = null;
  try {
    kept = window[kind]; // throws where somebody forbids it
  } catch (error) {
    // Then a reload forgets.
  }
  return {
    get: (name) => (kept ? kept.getItem(name) : memory.get(name) || null),
    set(name, value) {
      try {
        if (kept) kept.setItem(name, value);
        else memory.set(name, value);
      } catch (error) {
        // It is full: what is kept already stays.
      }
    },
    remove: (name) => (kept ? kept.removeItem(name) : memory.delete(name)),
  };
}
