// Shows openapi.json, which stands beside this page, in the bundled viewer. Everything comes from this server; no token is stored.
"use strict";

// The viewer's dark colours hang on this class; let it follow the system, also while the page is open.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// The viewer's dialog has a Close button, but does not know the key.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    document.querySelector("#contract .dialog-ux .close-modal")?.click();
  }
});

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#contract",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
  queryConfigEnabled: false,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
