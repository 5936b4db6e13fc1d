/** `/schema`: the REST and open API, with a try-out against this very server. */

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";
import { findSession, token } from "../lib/session.js";
import { openPage } from "../lib/shell.js";

openPage(t("home.docs"), async (main) => {
  const place = h("div", { id: "swagger-ui" });
  main.className = "docs";
  main.append(
    h("nav", { class: "docs-links", "aria-label": t("home.docs") },
      h("strong", { "aria-current": "page" }, t("home.docs")),
      h("a", { href: "/schema/live" }, t("home.live.docs")),
      h("a", { href: "/schema/openapi.json" }, "openapi.json"),
      h("a", { href: "/openapi/coze.json" }, "coze.json")),
    place);
  const spec = await (await fetch("/schema/openapi.json")).json();
  spec.servers = [{ url: location.origin }]; // the try-out calls whoever served this page
  const ui = window.SwaggerUIBundle({
    spec,
    domNode: place,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
  await findSession();
  if (token()) ui.preauthorizeApiKey("staffToken", token());
});
