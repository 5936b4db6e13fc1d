/** What a page is about stands in its address: a reload, or the way back, shows it again. */

/** The id at the end of the address. */
export function idInAddress() {
  const last = location.pathname.replace(/\/$/, "").split("/").pop();
  try {
    return decodeURIComponent(last);
  } catch (error) {
    return last; // a lonely %: nothing has such an id, and the server will say so
  }
}

/** The members of `known` as the address has them, each of the type that it has in `known`. */
export function fromAddress(known) {
  const asked = new URLSearchParams(location.search);
  const found = { ...known };
  for (const [name, usual] of Object.entries(known)) {
    const text = asked.get(name);
    if (text === null) continue;
    if (typeof usual !== "number") found[name] = text;
    else if (/^[1-9]\d{0,8}$/.test(text)) found[name] = Number(text);
  }
  return found;
}

/** Writes what differs from `known` into the address; no step of the way back. */
export function toAddress(known, shown) {
  const changed = Object.entries(shown).filter(([name, value]) => name in known && value !== known[name]);
  const query = new URLSearchParams(changed).toString();
  history.replaceState(null, "", location.pathname + (query ? "?" + query : ""));
}
