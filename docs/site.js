// Tables that scroll in themselves can be scrolled by keyboard.
document$.subscribe(() => {
  for (const wrapper of document.querySelectorAll(".md-typeset__scrollwrap")) {
    wrapper.tabIndex = 0;
  }
});
