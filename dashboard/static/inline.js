// Runs before plotly, which writes style as text: a sheet for maps when it is loaded, and attributes when it draws. Our
// content security policy refuses text as style, so that no text from a run can ever dress the page. We draw no maps:
// that sheet stays empty; attributes are set through the object model, which the policy allows.
"use strict";
Object.defineProperty(HTMLStyleElement.prototype, "textContent", { get: () => "", set: () => {} });

const setAttributeAsText = Element.prototype.setAttribute;
Element.prototype.setAttribute = function setAttribute(name, value) {
  if (name === "style" && this.style) this.style.cssText = value;
  else setAttributeAsText.call(this, name, value);
};
