// What the user can do something about: shown as it is, unlike a fault of the page.
(function (page) {
  "use strict";

  page.InputError = class InputError extends Error {};
  page.fail = (message) => {
    throw new page.InputError(message);
  };
})((globalThis.probegen = globalThis.probegen || {}));
