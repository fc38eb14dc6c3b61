// Runs before the page is painted, so that a dark page never flashes white.
"use strict";
const savedTheme = localStorage.getItem("theme");
if (savedTheme === "light" || savedTheme === "dark") document.documentElement.dataset.theme = savedTheme;
