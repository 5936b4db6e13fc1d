/** `/schema`: the REST and open API, with a try-out against this very server. */

import { showDocument } from "../lib/document.js";
import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { findSession, token } from "../lib/session.js";
import { openPage } from "../lib/shell.js";

openPage(t("home.docs"), (main) => {
  const place = h("div", { id: "swagger-ui" });
  main.className = "docs";
  main.append(
    h("nav", { class: "docs-links", "aria-label": t("home.docs") },
      h("strong", { "aria-current": "page" }, t("home.docs")),
      h("a", { href: "/schema/live" }, t("home.live.docs")),
      h("a", { href: "/schema/openapi.json" }, "openapi.json"),
      h("a", { href: "/openapi/coze.json" }, "coze.json")),
    place);
  showDocument("/schema/openapi.json", place, (spec) => swagger(spec, place));
});

async function swagger(spec, domNode) {
  const ui = window.SwaggerUIBundle({
    // The try-out calls whoever served this page.
    spec: { ...spec, paths: readable(spec.paths), servers: [{ url: location.origin }] },
    domNode,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
  await findSession();
  if (token()) ui.preauthorizeApiKey("staffToken", token());
}

const without = (name, { [name]: _, ...others }) => others;

/** What people come for stands first; HEAD, which answers as GET without the body, is left out. */
function readable(paths) {
  const isApi = ([path]) => path.startsWith("/api/");
  const shown = ([path, item]) => [path, item.get ? without("head", item) : item];
  return Object.fromEntries(Object.entries(paths).sort((one, other) => isApi(other) - isApi(one)).map(shown));
}
